package proxytest

import (
	"context"
	"net"
	"sync"
	"testing"
)

// A reader that goes while a connection to it is opened is not lent to anybody.
func TestReaderGoesInTheConnect(t *testing.T) {
	t.Parallel()
	const one, two = "postgres://app:x@127.0.0.1:1/db?sslmode=disable", "postgres://app:x@127.0.0.1:2/db?sslmode=disable"
	for name, take := range map[string]func(*Proxy) error{
		"gone":     func(px *Proxy) error { return px.SetReaders(two) },
		"replaced": func(px *Proxy) error { return px.FinishFailover(two) },
		"down": func(px *Proxy) error {
			px.SetReaderDown(one, true)
			return px.SetReaders(one, two)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var dialled []string
			mu.Lock()
			var px *Proxy
			px = startScripted(t, func(_ context.Context, _, addr string) (net.Conn, error) {
				mu.Lock()
				dialled = append(dialled, addr)
				first, px := len(dialled) == 1, px
				mu.Unlock()
				if first {
					if err := take(px); err != nil {
						t.Error(err)
					}
				}
				return dialFake(false)
			}, WithReaders(one))
			mu.Unlock()
			client := dialPipeline(t, px)
			client.goOn(newFakeSession(), pipeline("Q select 1"))
			mu.Lock()
			defer mu.Unlock()
			if len(dialled) != 2 || dialled[1] != "127.0.0.1:2" {
				t.Errorf("dialled %q", dialled)
			}
			if got := px.DatabaseConnections(); len(got) != 1 {
				t.Errorf("%+v", got)
			}
		})
	}
}
