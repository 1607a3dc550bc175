package proxy

// What a pool knows of the instances behind its cluster endpoint, if it was asked to: see
// WithTopology. There is no watcher. A connect learns the instances while all is well, and the
// connect that goes on trying for the others while the endpoint fails looks at all of them.

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

type topology struct {
	cluster target // the endpoint
	pattern string // of the instances' names, with a question mark; "" if they were given

	mu        sync.Mutex // times are the wall clock's: the other stands still in a frozen environment
	instances []target
	asked     time.Time // when the last question was put, whatever became of it
	useless   bool      // this server does not know its topology

	// preferred is the instance that was found to be the writer when the endpoint led
	// elsewhere. It is tried first for a while, because the endpoint goes on doing so.
	preferred *target
	until     time.Time
}

const (
	learnEvery = 30 * time.Second
	learnLimit = time.Second
	preferFor  = time.Minute
)

// newTopology is nil if none was asked for.
func newTopology(o failoverOptions, targets []target) (*topology, error) {
	if !o.topology {
		return nil, nil
	}
	bad := func(problem, fix string) (*topology, error) {
		return nil, &ConfigError{Source: "WithTopology", Problem: problem, Fix: fix}
	}
	t := &topology{cluster: targets[0]}
	switch kind := t.cluster.endpoint.Kind; {
	case kind.IsProxy():
		return bad("RDS Proxy follows the writer by itself, and hides the instances", "leave it out for a proxy")
	case !kind.isWriter():
		return bad("a "+kind.String()+" endpoint does not follow the writer", "use the cluster endpoint; for a custom domain that leads to one add WithEndpointKind(KindWriter)")
	case len(targets) > 1:
		return bad("there are several hosts already", "name the cluster endpoint alone")
	case t.cluster.addr != "":
		return bad("hostaddr replaces the names that the instances would be found by", "leave hostaddr out, or use WithDialer for a tunnel")
	}
	for _, name := range o.instances {
		if !strings.Contains(name, "?") {
			t.instances = append(t.instances, t.instance(name))
			continue
		}
		if t.pattern != "" || len(o.instances) > 1 {
			return bad("there is more than one pattern, or a pattern and a name", "give one pattern, or the names of all instances")
		}
		t.pattern = name
	}
	if len(o.instances) == 0 {
		if t.pattern = instancePattern(t.cluster.endpoint.Host); t.pattern == "" {
			return bad("how the instances are named does not follow from "+quote(t.cluster.endpoint.Host), `give the pattern, as WithTopology("?.abc.eu-west-1.rds.amazonaws.com")`)
		}
	}
	return t, nil
}

// instancePattern turns NAME.cluster-ID.REGION.rds.amazonaws.com into
// ?.ID.REGION.rds.amazonaws.com.
func instancePattern(host string) string {
	_, rest, _ := strings.Cut(host, ".")
	id, ok := strings.CutPrefix(rest, "cluster-")
	if !ok || strings.HasPrefix(id, "ro-") || strings.HasPrefix(id, "custom-") {
		return ""
	}
	return "?." + id
}

// instance is the target for an instance's name.
func (t *topology) instance(host string) target {
	one := t.cluster
	one.endpoint.Host, one.endpoint.Kind = strings.ToLower(strings.TrimSuffix(host, ".")), KindInstance
	if one.tls != nil {
		one.tls = one.tls.Clone()
		if one.tls.ServerName != "" {
			one.tls.ServerName = one.endpoint.Host
		}
	}
	return one
}

// topologyQuery lists the instances of an Aurora cluster, the writer first. Rows that nobody has
// updated for five minutes are of instances that are gone. Source:
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora_replica_status.html
const topologyQuery = `select server_id from pg_catalog.aurora_replica_status()
	where session_id = 'MASTER_SESSION_ID' or last_update_timestamp is null
		or last_update_timestamp > pg_catalog.now() - interval '5 minutes'
	order by session_id <> 'MASTER_SESSION_ID'`

// learn asks the server at hand for the instances, if it is time, and nobody else does.
// The connect does not depend on the answer, unless asking has broken the connection, as it does when
// the answer takes more than learnLimit. The next one does not ask again.
func (t *topology) learn(ctx context.Context, pc *pgconn.PgConn, log *slog.Logger) error {
	if !t.claimLearning() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, learnLimit)
	defer cancel()
	results, err := pc.Exec(ctx, topologyQuery).ReadAll()
	if err != nil {
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && (pgErr.Code == "42883" || pgErr.Code == "42501") {
			t.giveUpLearning()
		}
		log.LogAttrs(ctx, slog.LevelWarn, "aurorapgx: the cluster's instances cannot be learned",
			slog.String("endpoint", t.cluster.hostPort()), slog.String("error", err.Error()))
		if pc.IsClosed() {
			return err
		}
		return nil
	}
	var found []target
	for _, result := range results {
		for _, row := range result.Rows {
			found = append(found, t.instance(strings.Replace(t.pattern, "?", string(row[0]), 1)))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(found) > 0 {
		t.instances = found
	}
	return nil
}

func (t *topology) claimLearning() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pattern == "" || t.useless {
		return false
	}
	now := time.Now().Round(0)
	if age := now.Sub(t.asked); age >= 0 && age < learnEvery {
		return false
	}
	t.asked = now
	return true
}

func (t *topology) giveUpLearning() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.useless = true
}

// outdated has the next connect ask again: the cluster has changed.
func (t *topology) outdated() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = time.Time{}
}

// lead is where a connect tries first: nil for the cluster endpoint.
func (t *topology) lead() *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.preferred != nil && time.Now().After(t.until) {
		t.preferred = nil
	}
	return t.preferred
}

// prefer notes that an instance is the writer; nil, that the preferred one is not.
func (t *topology) prefer(one *target) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.preferred, t.until = one, time.Now().Round(0).Add(preferFor)
}

// others are the places to look at beside lead.
func (t *topology) others(lead *target) []*target {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*target
	for _, one := range slices.Clone(t.instances) {
		if lead == nil || lead.endpoint.Host != one.endpoint.Host {
			list = append(list, &one)
		}
	}
	if lead != nil {
		endpoint := t.cluster
		list = append(list, &endpoint)
	}
	return list
}
