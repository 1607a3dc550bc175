package aurora

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Spec describes a cluster and all that belongs to it. Every field is optional; the
// zero value stands for the default named beside it, and [Spec.WithDefaults] fills
// them all in. A Spec is a plain value: copy it, change it, keep it as JSON (see
// [ParseSpec]).
type Spec struct {
	// Name prefixes what the stack creates, and is the cluster's and the proxy's name:
	// two stacks in one account and region need different ones. Lower-case letters,
	// digits and single hyphens, at most 40 characters. Default "app".
	// Changing it later replaces the cluster and the proxy.
	Name string `json:"name,omitempty"`
	// Engine is the Aurora PostgreSQL version, as "17.9". Default [DefaultEngine].
	Engine string `json:"engine,omitempty"`
	// Database is created with the cluster. Default "app". Changing it later replaces
	// the cluster.
	Database string `json:"database,omitempty"`
	// Schemas are the schemas of the database that users are granted access to. They
	// are created if they do not exist. Default "public" alone.
	Schemas []string `json:"schemas,omitempty"`
	// MasterUser is the name of the administrator RDS creates. Its password is made,
	// kept and rotated by RDS in Secrets Manager, and nobody has to know it.
	// Default "dbadmin". Changing it later replaces the cluster.
	MasterUser string `json:"masterUser,omitempty"`
	// Users are the database users applications log in as. Default: "app", which reads
	// and writes, and "migrate", which owns the schemas. The first is the one a hand-off
	// is made for when none is named.
	Users []User `json:"users,omitempty"`
	// Auth is how users log in. Default [IAM].
	Auth Auth `json:"auth,omitempty"`
	// Rotation is about the users' secrets, and matters with [Secrets] only.
	Rotation Rotation `json:"rotation,omitzero"`
	// Capacity bounds each instance. Default 0.5 to 16 ACU.
	Capacity Capacity `json:"capacity,omitzero"`
	// Readers are the instances beside the writer, each in another availability zone if
	// the subnets allow. Default: one in promotion tier 1, which follows the writer's
	// capacity and takes its place when it fails.
	Readers []Reader `json:"readers,omitempty"`
	// WriterOnly does without readers. A failed writer is then recreated, which takes up
	// to 10 minutes where a reader takes over in less than one:
	// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Concepts.AuroraHighAvailability.html
	WriterOnly bool `json:"writerOnly,omitempty"`
	// Proxy is the RDS Proxy in front of the cluster. Default: there is one.
	Proxy Proxy `json:"proxy,omitzero"`
	// Network gives the template's parameters their defaults. Without it the parameters
	// are filled in at deployment.
	Network Network `json:"network,omitzero"`
	// KMSKey is the ARN of the key that encrypts storage, secrets and insights. Default:
	// AWS's own key of each service. Changing it later replaces the cluster.
	KMSKey string `json:"kmsKey,omitempty"`
	// IOOptimized is Aurora's storage without I/O charges, at a higher price for
	// capacity and storage. It pays when I/O is more than about a quarter of the bill.
	IOOptimized bool `json:"ioOptimized,omitempty"`
	// Insights is CloudWatch Database Insights, formerly Performance Insights.
	Insights Insights `json:"insights,omitzero"`
	// Backup is the continuous backup.
	Backup Backup `json:"backup,omitzero"`
	// MaintenanceWindow is when patches may be applied, as "sun:04:00-sun:05:00" in UTC.
	// Default: chosen by AWS.
	MaintenanceWindow string `json:"maintenanceWindow,omitempty"`
	// LogDays is how long the logs of database and proxy are kept. Default 30; one of
	// the periods CloudWatch Logs knows.
	LogDays int `json:"logDays,omitempty"`
	// Alarms are the alarms of instances and proxy, and the dashboard beside them.
	Alarms Alarms `json:"alarms,omitzero"`
	// DataAPI opens the RDS Data API, SQL over HTTPS with IAM. Default: closed, unless
	// BootstrapAtDeploy or a rotation in the stack needs it.
	DataAPI bool `json:"dataAPI,omitempty"`
	// BootstrapAtDeploy creates users, schemas and grants while the stack is deployed,
	// by a small function inside the template that calls the Data API. It may run before
	// RDS has created the proxy's own user, and then leaves the database postgres open to every
	// user: run [Bootstrap] once afterwards to close it. Default: the SQL is run by whoever deploys.
	BootstrapAtDeploy bool `json:"bootstrapAtDeploy,omitempty"`
	// Disposable drops what protects data: deletion protection, and the final snapshot
	// when the stack is deleted. For environments that come and go.
	Disposable bool `json:"disposable,omitempty"`
	// Tags are put on every resource that takes them.
	Tags map[string]string `json:"tags,omitempty"`
	// Overrides set CloudFormation properties that this type has no field for. They are
	// checked like everything else: see [Spec.Validate].
	Overrides []Override `json:"overrides,omitempty"`
}

// DefaultEngine is the Aurora PostgreSQL version of a Spec that names none, as of
// [EnginesAsOf].
const DefaultEngine = "17.9"

// User is a database user.
type User struct {
	// Name is a lower-case identifier of at most 63 letters, digits and underscores.
	Name string `json:"name"`
	// Access is what the user may do in its schemas. Default [ReadWrite].
	Access Access `json:"access,omitempty"`
	// Schemas are those of [Spec.Schemas] the user has access to. Default: all.
	Schemas []string `json:"schemas,omitempty"`
	// StatementTimeout ends statements that run longer. A client that gives up does not
	// end them behind RDS Proxy, which has no cancel requests. Default 1 minute, none
	// for an [Owner]; negative means none. A statement_timeout in Proxy.Session goes before it.
	StatementTimeout time.Duration `json:"statementTimeout,omitempty"`
	// IdleInTransactionTimeout ends sessions that do nothing inside an open transaction.
	// Default 1 minute; negative means none. An idle_in_transaction_session_timeout in
	// Proxy.Session goes before it.
	IdleInTransactionTimeout time.Duration `json:"idleInTransactionTimeout,omitempty"`
	// Direct lets the user log in to the cluster itself as well, past the proxy, for what
	// would pin there: migrations, LISTEN. With [IAM] the user's policy then allows it, which
	// is for each server apart; from where, Network.DirectSecurityGroups says. Without a
	// proxy every user logs in to the cluster. Default false.
	// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
	Direct bool `json:"direct,omitempty"`
}

// Access is what a [User] may do.
type Access string

const (
	// ReadWrite users select, insert, update and delete, and use sequences and functions.
	ReadWrite Access = "read-write"
	// ReadOnly users select.
	ReadOnly Access = "read-only"
	// Owner users own the schemas: they create, change and drop what is in them. What
	// they create is accessible to the other users at once. Migrations run as one.
	Owner Access = "owner"
)

// Auth is how the users log in.
type Auth string

const (
	// IAM is end-to-end IAM: a token from the client to the proxy and another from the
	// proxy to the database. There is no password and no secret to look after.
	// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-iam-setup.html
	IAM Auth = "iam"
	// Secrets gives each user a password of its own in Secrets Manager, which clients
	// and proxy both read, and which is rotated.
	Secrets Auth = "secrets"
)

// Rotation is how the users' secrets change, with [Secrets].
type Rotation struct {
	// Every is the time between rotations, from 4 hours to 999 days, in whole hours.
	// Default 30 days.
	Every time.Duration `json:"every,omitempty"`
	// Strategy is [SingleUser], the default. Behind RDS Proxy no other one works.
	Strategy Strategy `json:"strategy,omitempty"`
	// FunctionARN is a rotation function of your own. Default: one inside the template
	// that sets the password through the Data API.
	FunctionARN string `json:"functionARN,omitempty"`
	// Off leaves the secrets as they were generated.
	Off bool `json:"off,omitempty"`
}

// Strategy is a rotation strategy of Secrets Manager.
// https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotation-strategy.html
type Strategy string

const (
	// SingleUser changes the password of the user.
	SingleUser Strategy = "single-user"
	// AlternatingUsers switches between the user and its clone. It is here to be refused
	// with a reason: RDS Proxy ends the sessions of the name that is no longer in the
	// secret. https://github.com/aws/aws-cdk/issues/25568
	AlternatingUsers Strategy = "alternating-users"
)

// Capacity is in Aurora capacity units (ACU) of about 2 GiB of memory each, in steps
// of 0.5. It holds for each instance, not for the cluster.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2.setting-capacity.html
type Capacity struct {
	// Min is at least 0.5. Default 0.5, and 0 with AutoPause. With less than 1 the number
	// of connections is capped at 2,000, and scaling up starts slowly.
	Min float64 `json:"min,omitempty"`
	// Max is from 1 to 256. Default 16. The number of connections follows from it, after
	// a reboot.
	Max float64 `json:"max,omitempty"`
	// AutoPause lets instances pause after so long without a connection, from 5 minutes
	// to 24 hours: the minimum is then 0. Never behind a proxy, which keeps connections
	// open. Zero means that they do not pause.
	AutoPause time.Duration `json:"autoPause,omitempty"`
}

// Reader is an instance beside the writer.
type Reader struct {
	// Tier is the promotion tier, from 1 to 15. Readers in tier 1 scale together with
	// the writer, so that one of them can take over; the others scale by themselves.
	// Default 1.
	Tier int `json:"tier,omitempty"`
}

// Proxy is the RDS Proxy. It requires TLS, always.
type Proxy struct {
	// Off does without a proxy: clients log in to the cluster.
	Off bool `json:"off,omitempty"`
	// MaxConnectionsPercent is the proxy's share of the database's connections, from 1 to
	// 100. Default 90, which leaves some for administrators.
	MaxConnectionsPercent int `json:"maxConnectionsPercent,omitempty"`
	// MaxIdleConnectionsPercent is how many of the database's connections the proxy keeps
	// while nobody uses them, at most MaxConnectionsPercent. Default half of that.
	MaxIdleConnectionsPercent int `json:"maxIdleConnectionsPercent,omitempty"`
	// BorrowTimeout is how long a client waits for a database connection, also during a
	// failover; from 1 second to 5 minutes. Default 30 seconds.
	BorrowTimeout time.Duration `json:"borrowTimeout,omitempty"`
	// IdleClientTimeout is after which time idle clients are disconnected, from 1 minute
	// to 8 hours. It must be longer than what the clients' pools keep idle connections
	// for, 5 minutes by default. Default 30 minutes.
	IdleClientTimeout time.Duration `json:"idleClientTimeout,omitempty"`
	// Session are settings of every database connection, by name: the place for what
	// would pin the session if a client sent SET. They go before what a user has of its own
	// (https://www.postgresql.org/docs/current/sql-alterrole.html). Lists of names, which are
	// search_path and temp_tablespaces, are written as SHOW writes them: app, "My Schema".
	// Everyone who may describe the proxy can read them. Default: none.
	Session map[string]string `json:"session,omitempty"`
	// NoReaderEndpoint does without the read-only endpoint a proxy gets if there are
	// readers. It costs what a PrivateLink endpoint costs.
	NoReaderEndpoint bool `json:"noReaderEndpoint,omitempty"`
	// DebugLogging writes statements to the proxy's log. RDS Proxy switches it off by
	// itself after a day.
	DebugLogging bool `json:"debugLogging,omitempty"`
}

// Network is where the cluster is put. Each field becomes the default of a template
// parameter.
type Network struct {
	// VPC is the id of the VPC, parameter VpcId.
	VPC string `json:"vpc,omitempty"`
	// Subnets are the ids of private, isolated subnets in at least two availability
	// zones, parameter SubnetIds.
	Subnets []string `json:"subnets,omitempty"`
	// ZoneIDs are the availability zone ids of the subnets, as use1-az1, in the same
	// order. They are not rendered, but checked: RDS Proxy is not in every zone.
	ZoneIDs []string `json:"zoneIDs,omitempty"`
	// ClientSecurityGroups are the security groups that may connect to the proxy, or to
	// the cluster if there is none, parameter ClientSecurityGroupIds. In a stack that is
	// deployed a group keeps its place: append new ones, and write another one in the
	// place of one that goes unless it is the last. CloudFormation creates the rule for a
	// group's new place before it deletes the one for the old, and EC2 refuses two of the same
	// (InvalidPermission.Duplicate).
	// https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-updatereplacepolicy.html
	// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
	ClientSecurityGroups []string `json:"clientSecurityGroups,omitempty"`
	// DirectSecurityGroups are the security groups that may connect to the cluster itself,
	// past the proxy: those of whoever runs [Bootstrap], migrations or LISTEN. Parameter
	// DirectSecurityGroupIds, which is there if this names one or a user is Direct; without
	// it nobody but the proxy may. They keep their places as those above do. Clients of the cluster need the RDS root certificates:
	// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.SSL.html
	DirectSecurityGroups []string `json:"directSecurityGroups,omitempty"`
}

// Insights is CloudWatch Database Insights.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/USER_DatabaseInsights.html
type Insights struct {
	// Off does without.
	Off bool `json:"off,omitempty"`
	// Advanced is the mode that is paid for.
	Advanced bool `json:"advanced,omitempty"`
	// Days is how long its data is kept: 7, which is free, a multiple of 31 up to 713,
	// or 731. Default 7, and 465 with Advanced, which needs at least that.
	Days int `json:"days,omitempty"`
}

// Backup is Aurora's continuous backup.
type Backup struct {
	// Days is how far back the cluster can be restored to, from 1 to 35. Default 7.
	Days int `json:"days,omitempty"`
	// Window is when the daily snapshot is made, as "02:00-03:00" in UTC. Default:
	// chosen by AWS.
	Window string `json:"window,omitempty"`
}

// Alarms are CloudWatch alarms per instance and for the proxy. Metrics that are not
// there yet do not alarm: RDS Proxy has none before its first connection.
type Alarms struct {
	// Off does without alarms and dashboard.
	Off bool `json:"off,omitempty"`
	// TopicARN is the SNS topic that hears of alarms and of their end. Default: nobody
	// hears, the alarms are seen on the dashboard.
	TopicARN string `json:"topicARN,omitempty"`
	// Period is the time one data point covers: whole minutes up to an hour, because RDS
	// publishes one value a minute. Default 5 minutes. An alarm on something sustained
	// needs 5 of 6 data points, so that a peak that scaling deals with is none.
	Period time.Duration `json:"period,omitempty"`
	// ACUPercent is the share of the maximum capacity an instance may use, sustained. It
	// must be more than Capacity.Min is of Capacity.Max: what is measured is the capacity
	// an instance has, of which even an idle one has the minimum, so the alarm would
	// always be on. Default 80, or half-way from minimum to maximum where that is more.
	// Where the two are the same there are no alarms on capacity.
	// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2.setting-capacity.html
	ACUPercent int `json:"acuPercent,omitempty"`
	// PinnedSessions is how many pinned sessions are too many, sustained. Default 10.
	PinnedSessions int `json:"pinnedSessions,omitempty"`
	// BorrowLatency is how long clients may wait for a database connection on average.
	// Default 100 ms.
	BorrowLatency time.Duration `json:"borrowLatency,omitempty"`
	// FailedLogins is how many failed logins within a period are too many. Default 20.
	FailedLogins int `json:"failedLogins,omitempty"`
}

// Override sets one property of one resource.
type Override struct {
	// Resource is the logical id in the template, as "Cluster".
	Resource string `json:"resource"`
	// Property is the path below Properties, as "ServerlessV2ScalingConfiguration.MaxCapacity".
	Property string `json:"property"`
	// Value is anything encoding/json can write. Null takes the property away.
	Value any `json:"value"`
}

// WithDefaults returns the Spec with every default filled in. It shares nothing with
// the original and changes no value that was set, so it does not make an invalid Spec
// valid.
func (s Spec) WithDefaults() Spec {
	set(&s.Name, "app")
	set(&s.Engine, DefaultEngine)
	set(&s.Database, "app")
	set(&s.MasterUser, "dbadmin")
	set(&s.Auth, IAM)
	set(&s.LogDays, 30)
	s.Schemas = listOr(s.Schemas, "public")
	s.Users = listOr(s.Users, User{Name: "app"}, User{Name: "migrate", Access: Owner})
	for i := range s.Users {
		s.Users[i] = s.Users[i].withDefaults(s.Schemas)
	}
	if !s.WriterOnly {
		s.Readers = listOr(s.Readers, Reader{Tier: 1})
	}
	s.Readers = slices.Clone(s.Readers)
	for i := range s.Readers {
		set(&s.Readers[i].Tier, 1)
	}
	if s.Auth == Secrets {
		set(&s.Rotation.Every, 30*24*time.Hour)
		set(&s.Rotation.Strategy, SingleUser)
	}
	if s.Capacity.AutoPause == 0 {
		set(&s.Capacity.Min, 0.5)
	}
	set(&s.Capacity.Max, 16)
	s.Proxy = s.Proxy.withDefaults()
	s.Network.Subnets = slices.Clone(s.Network.Subnets)
	s.Network.ZoneIDs = slices.Clone(s.Network.ZoneIDs)
	s.Network.ClientSecurityGroups = slices.Clone(s.Network.ClientSecurityGroups)
	s.Network.DirectSecurityGroups = slices.Clone(s.Network.DirectSecurityGroups)
	if !s.Insights.Off {
		set(&s.Insights.Days, map[bool]int{false: 7, true: 465}[s.Insights.Advanced])
	}
	set(&s.Backup.Days, 7)
	s.Alarms = s.Alarms.withDefaults(s.Capacity)
	s.DataAPI = s.DataAPI || s.BootstrapAtDeploy || s.rotatesInStack()
	s.Tags = maps.Clone(s.Tags)
	s.Overrides = slices.Clone(s.Overrides)
	return s
}

// direct reports whether somebody may connect past the proxy.
func (s Spec) direct() bool {
	return !s.Proxy.Off && (len(s.Network.DirectSecurityGroups) > 0 || slices.ContainsFunc(s.Users, func(u User) bool { return u.Direct }))
}

// rotatesInStack reports whether the template holds the rotation function.
func (s Spec) rotatesInStack() bool {
	return s.Auth == Secrets && !s.Rotation.Off && s.Rotation.FunctionARN == ""
}

func (u User) withDefaults(schemas []string) User {
	set(&u.Access, ReadWrite)
	u.Schemas = listOr(u.Schemas, schemas...)
	if u.Access != Owner {
		set(&u.StatementTimeout, time.Minute)
	}
	set(&u.IdleInTransactionTimeout, time.Minute)
	return u
}

func (p Proxy) withDefaults() Proxy {
	p.Session = maps.Clone(p.Session)
	if p.Off {
		return p
	}
	set(&p.MaxConnectionsPercent, 90)
	set(&p.MaxIdleConnectionsPercent, p.MaxConnectionsPercent/2)
	set(&p.BorrowTimeout, 30*time.Second)
	set(&p.IdleClientTimeout, 30*time.Minute)
	return p
}

func (a Alarms) withDefaults(c Capacity) Alarms {
	if a.Off {
		return a
	}
	set(&a.Period, 5*time.Minute)
	if least := c.leastPercent(); least < 100 {
		set(&a.ACUPercent, max(80, int(math.Ceil((least+100)/2))))
	}
	set(&a.PinnedSessions, 10)
	set(&a.BorrowLatency, 100*time.Millisecond)
	set(&a.FailedLogins, 20)
	return a
}

// leastPercent is how much of the maximum an instance has at least, in percent.
func (c Capacity) leastPercent() float64 { return 100 * c.Min / c.Max }

// set gives a field its default unless it has a value.
func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func listOr[T any](list []T, instead ...T) []T {
	if len(list) == 0 {
		list = instead
	}
	return slices.Clone(list)
}
