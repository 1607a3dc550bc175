package pgtest

// This file has the options, the settings every server gets, and the
// postgresql.conf that comes of both.

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Option changes how a server is started.
type Option func(*config)

// WithSetting sets a parameter of postgresql.conf. Of several values for the
// same parameter the last one counts. A server of PGTEST_DSN cannot be set up
// this way, so with this option the next way is taken.
func WithSetting(name, value string) Option {
	return func(c *config) { c.settings = append(c.settings, setting{name, value}) }
}

// WithSynchronous makes a standby a synchronous one: a commit on the primary
// returns once the standby has it on disk, so that promoting the standby loses
// nothing that was committed. When the standby is gone, commits on the primary
// wait, as they do in production.
func WithSynchronous() Option {
	return func(c *config) { c.synchronous = true }
}

// config is what the options of Start and Standby add up to.
type config struct {
	settings    []setting
	synchronous bool
}

type setting struct {
	name, value string
}

// ours are the parameters without which pgtest could not find its server.
var ours = []string{
	"port", "listen_addresses", "unix_socket_directories", "primary_conninfo",
	"synchronous_standby_names", "config_file", "data_directory", "hba_file",
}

func newConfig(opts []Option) (config, error) {
	var c config
	for _, opt := range opts {
		opt(&c)
	}
	name := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	for _, s := range c.settings {
		if !name.MatchString(s.name) {
			return c, fmt.Errorf("pgtest: %q is not the name of a parameter", s.name)
		}
		if strings.ContainsAny(s.value, "\n\x00") {
			return c, fmt.Errorf("pgtest: the value of %s must be one line", s.name)
		}
		if slices.Contains(ours, strings.ToLower(s.name)) {
			return c, fmt.Errorf("pgtest: %s is set by pgtest itself; leave it out", s.name)
		}
	}
	return c, nil
}

// defaults make a server that starts fast, stops fast and can be copied.
var defaults = []setting{
	{"max_connections", "200"},
	// See the package comment for why these three are safe to turn off.
	{"fsync", "off"},
	{"full_page_writes", "off"},
	{"synchronous_commit", "on"},
	{"wal_level", "replica"},
	{"hot_standby", "on"},
	{"max_wal_senders", "10"},
	// A standby that is away for a while finds its WAL again without a slot.
	{"wal_keep_size", "512MB"},
	{"max_wal_size", "1GB"},
	{"shared_buffers", "64MB"},
	// Checkpoints: a test ends before the first one is due, and a checkpoint
	// that is asked for does not take its time.
	{"checkpoint_timeout", "30min"},
	{"checkpoint_completion_target", "0.1"},
	{"wal_retrieve_retry_interval", "200ms"},
	{"wal_receiver_status_interval", "1s"},
	{"password_encryption", "scram-sha-256"},
	{"timezone", "UTC"}, // as Aurora's
	{"log_timezone", "UTC"},
	{"logging_collector", "off"},
	{"log_destination", "stderr"},
	{"log_line_prefix", "%m [%p] %q%u@%d "},
	{"lc_messages", "C"},
	{"unix_socket_directories", ""},
}

// render writes a postgresql.conf. It lies outside the data directory, so that
// copying a server's data does not copy its settings; the file that initdb
// left in there contributes what it found out about the machine.
func render(groups ...[]setting) string {
	var b strings.Builder
	b.WriteString("include 'data/postgresql.conf'\n")
	for _, s := range slices.Concat(groups...) {
		fmt.Fprintf(&b, "%s = %s\n", s.name, quote(s.value))
	}
	return b.String()
}

// quote quotes a value for postgresql.conf.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + "'"
}
