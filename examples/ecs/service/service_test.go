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
	good := map[string]string{"DB_CONNECTIONS": "100", "MAX_TASKS": "12", "STOP_TIMEOUT": "60s"}
	tests := map[string]struct {
		change map[string]string
		want   string // of the error
	}{
		"good":                {nil, ""},
		"no budget":           {map[string]string{"DB_CONNECTIONS": ""}, "DB_CONNECTIONS"},
		"no tasks":            {map[string]string{"MAX_TASKS": "0"}, "MAX_TASKS"},
		"too many tasks":      {map[string]string{"MAX_TASKS": "101"}, "does not give each"},
		"no time to drain":    {map[string]string{"STOP_TIMEOUT": "6s"}, "stopTimeout"},
		"nor for a request":   {map[string]string{"STOP_TIMEOUT": "40s"}, "41s"},
		"just enough":         {map[string]string{"STOP_TIMEOUT": "41s"}, ""},
		"ECS's own timeout":   {map[string]string{"STOP_TIMEOUT": ""}, "STOP_TIMEOUT=30s"},
		"not a duration":      {map[string]string{"DRAIN_DELAY": "5"}, "DRAIN_DELAY"},
		"drains quickly":      {map[string]string{"STOP_TIMEOUT": "37s", "DRAIN_DELAY": "500ms"}, ""},
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
	if err != nil || c.poolSize != 8 || c.port != "8080" || c.stopTimeout != time.Minute {
		t.Errorf("got %+v, %v", c, err)
	}
}
