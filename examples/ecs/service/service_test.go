package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadConfig(t *testing.T) {
	t.Parallel()
	good := map[string]string{"DB_CONNECTIONS": "100", "MAX_TASKS": "12"}
	tests := map[string]struct {
		change map[string]string
		want   string // of the error
	}{
		"good":                {nil, ""},
		"no budget":           {map[string]string{"DB_CONNECTIONS": ""}, "DB_CONNECTIONS"},
		"no tasks":            {map[string]string{"MAX_TASKS": "0"}, "MAX_TASKS"},
		"too many tasks":      {map[string]string{"MAX_TASKS": "101"}, "does not give each"},
		"no time to drain":    {map[string]string{"STOP_TIMEOUT": "6s"}, "stopTimeout"},
		"not a duration":      {map[string]string{"DRAIN_DELAY": "5"}, "DRAIN_DELAY"},
		"drains within 5 s":   {map[string]string{"STOP_TIMEOUT": "5s", "DRAIN_DELAY": "500ms"}, ""},
		"a connection a task": {map[string]string{"MAX_TASKS": "100"}, ""},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := maps.Clone(good)
			maps.Copy(env, tests[name].change)
			_, err := readConfig(func(name string) string { return env[name] })
			if want := tests[name].want; (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
	c, err := readConfig(func(name string) string { return good[name] })
	if err != nil || c.poolSize != 8 || c.port != "8080" || c.stopTimeout != 30*time.Second {
		t.Errorf("got %+v, %v", c, err)
	}
}
