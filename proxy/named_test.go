package proxy_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// The name of a reader endpoint leads to another reader each time it is looked up. A slow login to
// one of them goes on.
func TestASlowReaderIsWaitedForWhateverItsNameSaysNext(t *testing.T) {
	t.Parallel()
	trust := trusted(t) // made outside of virtual time
	for name, tt := range map[string]struct {
		kind  proxy.Kind
		dials int64
	}{
		"reader": {proxy.KindReader, 1},
		"custom": {proxy.KindCustom, 1},
		"writer": {proxy.KindWriter, 2}, // the first server is left when the name leads elsewhere
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				net := newPipes()
				s := serveScripted(t, net, func(d *dialogue) {
					time.Sleep(2 * time.Second)
					if d.letIn(standby("off")) {
						d.serve()
					}
				})
				var lookups atomic.Int64
				conn, err := proxy.Connect(t.Context(), "postgres://app:"+password+"@"+clusterHost+"/orders", trust,
					proxy.WithEndpointKind(tt.kind), proxy.WithDialer(net.dial),
					proxy.WithLookup(func(context.Context, string) ([]string, error) {
						n := lookups.Add(1)
						if tt.kind == proxy.KindWriter {
							n = min(n, 2)
						}
						return []string{fmt.Sprintf("10.0.0.%d", n%3+1)}, nil
					}))
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.Close(t.Context())
				if n := s.accepted.Load(); n != tt.dials {
					t.Errorf("%d dials, want %d", n, tt.dials)
				}
			})
		})
	}
}
