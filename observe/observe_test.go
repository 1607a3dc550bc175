package observe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/observe"
)

// every is one event of each kind with all fields set, by reflection, so that a field or a kind that
// is added is in it, or fails a test.
func every(t *testing.T) []observe.Event {
	t.Helper()
	kinds := []observe.Event{
		observe.ConnectAttempt{}, observe.Connected{}, observe.ConnectFailed{}, observe.CredentialsFetched{}, observe.SecretRead{},
		observe.Rotated{}, observe.Evicted{}, observe.FailoverNoticed{}, observe.WriterChanged{}, observe.TransactionAttempt{},
		observe.TransactionEnded{}, observe.CommitInDoubt{}, observe.CommitSettled{}, observe.Pinned{},
	}
	source, err := os.ReadFile("observe.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), ") event() "); n != len(kinds) {
		t.Fatalf("%d kinds of events, and %d are tested", n, len(kinds))
	}
	var full []observe.Event
	for _, kind := range kinds {
		v := reflect.New(reflect.TypeOf(kind)).Elem()
		for _, f := range v.Fields() {
			switch f.Interface().(type) {
			case string:
				f.SetString("text")
			case int:
				f.SetInt(2)
			case uint64:
				f.SetUint(2)
			case bool:
				f.SetBool(true)
			case time.Duration:
				f.SetInt(int64(time.Second))
			default:
				f.Set(reflect.ValueOf(errors.New("failure")))
			}
		}
		full = append(full, v.Interface().(observe.Event))
	}
	return full
}

// The keys are a promise: what is logged is in the package's documentation, and what is in there
// is logged, by this package or by package secrets.
func TestKeysAreDocumented(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("observe.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(source), "# Keys")
	table, _, _ := strings.Cut(rest, "No event holds")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(\w+(?:, \w+)*)  `).FindAllStringSubmatch(table, -1) {
		for key := range strings.SplitSeq(m[1], ", ") {
			documented[key] = true
		}
	}
	logged := map[string]bool{"read": true} // of package secrets
	for _, e := range every(t) {
		var buf bytes.Buffer
		observe.Log(slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))).Observe(t.Context(), e)
		var fields map[string]any
		if err := json.Unmarshal(buf.Bytes(), &fields); err != nil {
			t.Fatalf("%T: %v in %q", e, err, buf.String())
		}
		if message, _ := fields["msg"].(string); !strings.HasPrefix(message, "aurorapgx: ") {
			t.Errorf("%T: message %q", e, message)
		}
		for _, key := range []string{"msg", "level", "time"} {
			delete(fields, key)
		}
		if len(fields) == 0 {
			t.Errorf("%T: no keys", e)
		}
		for key := range fields {
			if logged[key] = true; !documented[key] {
				t.Errorf("%T: the key %q is not documented", e, key)
			}
		}
	}
	for key := range documented {
		if !logged[key] {
			t.Errorf("the key %q is documented, and nobody logs it", key)
		}
	}
}

// A logger without interest in a level is not handed the attributes.
func TestLogAsksBeforeItWrites(t *testing.T) {
	var buf bytes.Buffer
	o := observe.Log(slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelError})))
	var e observe.Event = observe.Evicted{Pool: "p", Reason: observe.EvictedClosed}
	if n := testing.AllocsPerRun(100, func() { o.Observe(context.Background(), e) }); n > 1 { // the method value
		t.Errorf("%v allocations for nothing", n)
	}
	if buf.Len() > 0 {
		t.Errorf("logged %q", buf.String())
	}
}

type named struct {
	name string
	log  *[]string
}

type key struct{}

func (n named) Start(ctx context.Context, op observe.Operation) context.Context {
	before, _ := ctx.Value(key{}).(string)
	*n.log = append(*n.log, n.name+" starts "+op.Name+" after "+before)
	return context.WithValue(ctx, key{}, n.name)
}

func (n named) Observe(ctx context.Context, _ observe.Event) {
	*n.log = append(*n.log, fmt.Sprint(n.name, " observes in ", ctx.Value(key{})))
}

func TestAll(t *testing.T) {
	t.Parallel()
	var log []string
	a, b := named{"a", &log}, named{"b", &log}
	if observe.All() != nil || observe.All(nil, nil) != nil {
		t.Error("nobody is somebody")
	}
	if observe.All(nil, a) != observe.Observer(a) {
		t.Error("one is not itself")
	}
	both := observe.All(a, nil, b)
	ctx := both.Start(t.Context(), observe.Operation{Name: observe.Connect})
	both.Observe(ctx, observe.Connected{})
	if got := strings.Join(log, "; "); got != "a starts connect after ; b starts connect after a; a observes in b; b observes in b" {
		t.Error(got)
	}
}
