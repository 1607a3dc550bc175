package secretstest

// Rotation in four steps, as AWS's rotation functions do it:
// https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"
)

// Strategy is how a rotation treats the database's users.
// Source: https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotation-strategy.html
type Strategy int

// The two strategies of AWS's rotation functions.
const (
	// SingleUser gives the user a new password. From setSecret to finishSecret the
	// current version's password is refused.
	SingleUser Strategy = iota
	// AlternatingUsers gives a new password to the other of two users, app and
	// app_clone, which is created when it is missing. The current version's works on.
	AlternatingUsers
)

// The steps, by the names that Secrets Manager gives them.
const (
	CreateSecret = "createSecret"
	SetSecret    = "setSecret"
	TestSecret   = "testSecret"
	FinishSecret = "finishSecret"
)

// Rotation says how [Server.Rotate] goes about it.
type Rotation struct {
	// AdminDSN is the connection string of a role that may alter and create roles, on
	// the database server itself: a rotation function cannot go through an RDS Proxy.
	// If it is empty, setSecret and testSecret do nothing.
	AdminDSN string
	Strategy Strategy
	// Window is how long the rotation takes from setSecret to finishSecret.
	Window time.Duration
	// After, if set, is called after each step, and with [SetSecret] before the window. An
	// error ends the rotation where it is, as a rotation function that fails does:
	// AWSPENDING stays.
	After func(ctx context.Context, step string) error
}

const (
	userField     = "username"
	passwordField = "password"
)

// Rotate rotates a secret, whose value must be JSON with username and password. Like a
// rotation function it uses the API, so that its requests are counted, and it keeps the
// value's other fields.
func (s *Server) Rotate(ctx context.Context, secretID string, r Rotation) error {
	run := rotation{Rotation: r, server: s, client: s.Client(), id: secretID, token: newID()}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{{CreateSecret, run.create}, {SetSecret, run.set}, {TestSecret, run.test}, {FinishSecret, run.finish}}
	for _, step := range steps {
		err := step.do(ctx)
		if err == nil && r.After != nil {
			err = r.After(ctx, step.name)
		}
		if err == nil && step.name == SetSecret {
			err = run.hold(ctx)
		}
		if err != nil {
			return fmt.Errorf("rotate %s: %s: %w", secretID, step.name, err)
		}
	}
	return nil
}

// rotation is one that is under way.
type rotation struct {
	Rotation

	server  *Server
	client  *secretsmanager.Client
	id      string
	token   string // becomes the pending version's id
	current string // the current version's id
	from    string // the current user
	user    string // the pending user
	pass    string // his new password
}

func (r *rotation) create(ctx context.Context) error {
	stage := stageCurrent
	out, err := r.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &r.id, VersionStage: &stage})
	if err != nil {
		return err
	}
	fields := map[string]any{}
	if json.Unmarshal([]byte(*out.SecretString), &fields) != nil {
		return errors.New("the current value is no JSON object")
	}
	r.current = *out.VersionId
	r.from, _ = fields[userField].(string)
	if r.from == "" {
		return errors.New("the current value has no username")
	}
	r.user, r.pass = r.from, rand.Text()
	if r.Strategy == AlternatingUsers {
		const suffix = "_clone"
		base, isClone := strings.CutSuffix(r.from, suffix)
		if r.user = base; !isClone {
			r.user = base + suffix
		}
	}
	fields[userField], fields[passwordField] = r.user, r.pass
	value, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	text := string(value)
	_, err = r.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
		SecretId: &r.id, ClientRequestToken: &r.token, SecretString: &text, VersionStages: []string{stagePending},
	})
	return err
}

func (r *rotation) set(ctx context.Context) error {
	if r.AdminDSN == "" {
		return nil
	}
	conn, err := pgx.Connect(ctx, r.AdminDSN)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	user, from := pgx.Identifier{r.user}.Sanitize(), pgx.Identifier{r.from}.Sanitize()
	if r.Strategy == AlternatingUsers {
		var exists bool
		if err := conn.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", r.user).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			if _, err := conn.Exec(ctx, "create role "+user+" login; grant "+from+" to "+user); err != nil {
				return err
			}
		}
	}
	_, err = conn.Exec(ctx, "alter role "+user+" password '"+r.pass+"'") // letters and digits
	return err
}

// hold keeps the window open.
func (r *rotation) hold(ctx context.Context) error {
	t := time.NewTimer(r.Window)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.server.closed:
		return errors.New("the server is closed")
	}
}

// test logs in with the pending version.
func (r *rotation) test(ctx context.Context) error {
	if r.AdminDSN == "" {
		return nil
	}
	cfg, err := pgx.ParseConfig(r.AdminDSN)
	if err != nil {
		return errors.New("AdminDSN is malformed")
	}
	cfg.User, cfg.Password = r.user, r.pass
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return errors.New("logging in with the pending version failed")
	}
	return conn.Close(ctx)
}

func (r *rotation) finish(ctx context.Context) error {
	stage := stageCurrent
	if _, err := r.client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &r.id, VersionStage: &stage, MoveToVersionId: &r.token, RemoveFromVersionId: &r.current,
	}); err != nil {
		return err
	}
	stage = stagePending
	_, err := r.client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: &r.id, VersionStage: &stage, RemoveFromVersionId: &r.token,
	})
	return err
}
