package aurora

import (
	"fmt"
	"strings"
)

// Stage is one of the four sizes a service usually grows through.
type Stage struct {
	Name  string // as a command line takes it: "early-production"
	Title string // as a page shows it: "Early production"
	About string // one line: for whom it is
	Spec  Spec
}

// Development is the smallest cluster that is worth its money: 0.5 to 2 ACU, one
// instance, no proxy (which costs twice what the database does; see the cost estimate),
// no alarms, one day of backups, deleted together with its stack. Set
// Capacity.AutoPause to pay for capacity only while somebody works with it.
func Development() Spec {
	return Spec{
		Capacity:   Capacity{Max: 2},
		WriterOnly: true,
		Proxy:      Proxy{Off: true},
		Backup:     Backup{Days: 1},
		Alarms:     Alarms{Off: true},
		LogDays:    7,
		Disposable: true,
	}
}

// EarlyProduction is the first cluster with customers: 0.5 to 8 ACU, a writer and a
// reader that takes over, RDS Proxy, alarms, a week of backups.
func EarlyProduction() Spec {
	return Spec{
		Capacity: Capacity{Max: 8},
		Readers:  []Reader{{Tier: 1}},
	}
}

// Growth has a minimum that keeps the cache warm: 2 to 16 ACU, two weeks of backups.
func Growth() Spec {
	return Spec{
		Capacity: Capacity{Min: 2, Max: 16},
		Readers:  []Reader{{Tier: 1}},
		Backup:   Backup{Days: 14},
		LogDays:  60,
	}
}

// Scale starts where Growth peaks: 4 to 32 ACU, the largest number of connections, 35
// days of backups. Raise Capacity.Max and add readers as needed.
func Scale() Spec {
	return Spec{
		Capacity: Capacity{Min: 4, Max: 32},
		Readers:  []Reader{{Tier: 1}},
		Backup:   Backup{Days: 35},
		LogDays:  90,
	}
}

// Stages are the presets, smallest first.
func Stages() []Stage {
	return []Stage{
		{"development", "Development", "one developer or a test environment; data that can be lost", Development()},
		{"early-production", "Early production", "the first customers; survives the loss of an instance", EarlyProduction()},
		{"growth", "Growth", "steady traffic; a minimum that keeps the cache warm", Growth()},
		{"scale", "Scale", "heavy traffic; the largest number of connections", Scale()},
	}
}

// StageByName finds a preset by its name, "early-production".
func StageByName(name string) (Stage, error) {
	stages := Stages()
	names := make([]string, len(stages))
	for i, stage := range stages {
		if stage.Name == name {
			return stage, nil
		}
		names[i] = stage.Name
	}
	return Stage{}, fmt.Errorf("aurora: there is no stage %q; take one of %s", name, strings.Join(names, ", "))
}
