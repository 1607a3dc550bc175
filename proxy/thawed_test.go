package proxy

import (
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/secrets"
)

// What was known before a freeze of three hours is three hours old behind it, and a clock that was set
// back keeps nobody from asking.

func TestConnectionsAreRetiredAfterAFreeze(t *testing.T) {
	t.Parallel()
	r := &rotation{within: time.Hour, calm: func() bool { return true }}
	old := r.opened(t.Context(), secrets.Credentials{User: "app", Password: "old"}, 1, 0, &target{})
	old.retireAfter = time.Hour
	r.opened(t.Context(), secrets.Credentials{User: "app", Password: "new"}, 2, 0, &target{})
	if r.outdated(old) {
		t.Fatal("outdated at once")
	}
	freeze(t, &r.since, 3*time.Hour)
	if !r.outdated(old) {
		t.Error("not outdated after three hours")
	}
}

func TestTheTopologyIsOutdatedAfterAFreeze(t *testing.T) {
	t.Parallel()
	for _, frozen := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		known := &topology{pattern: "?.abc.eu-west-1.rds.amazonaws.com"}
		if !known.claimLearning() || known.claimLearning() {
			t.Fatal("the instances are asked for never, or all the time")
		}
		freeze(t, &known.asked, frozen)
		if !known.claimLearning() {
			t.Errorf("the instances are not asked for again after %s", frozen)
		}
	}
	known := &topology{}
	if known.prefer(&target{}); known.lead() == nil {
		t.Fatal("the instance is not preferred")
	}
	freeze(t, &known.until, 3*time.Hour)
	if known.lead() != nil {
		t.Error("the instance is preferred after three hours")
	}
}
