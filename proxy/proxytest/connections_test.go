package proxytest_test

import (
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// Without a database there are clients all the same.
func TestClientConnections(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, "", proxytest.WithUser("app", "secret"))
	if got := px.ClientConnections(); len(got) != 0 {
		t.Errorf("before: %+v", got)
	}
	u, err := url.Parse(px.URL("app", "orders"))
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.User = "localhost:"+u.Port(), url.UserPassword("app", "secret")
	q := u.Query()
	q.Del("hostaddr")
	q.Set("application_name", "till")
	u.RawQuery = q.Encode()
	conn, err := pgconn.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	got := px.ClientConnections()
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	want := proxytest.ClientConnection{
		ID: 1, RemoteAddr: conn.Conn().LocalAddr().String(), User: "app", Database: "orders", Application: "till",
		LastActive: got[0].LastActive,
	}
	if got[0] != want {
		t.Errorf("%+v\nwant %+v", got[0], want)
	}
	if got := px.DatabaseConnections(); len(got) != 0 {
		t.Errorf("there is no database: %+v", got)
	}
}
