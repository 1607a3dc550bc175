package aurora

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func listPrices(t *testing.T) Prices {
	t.Helper()
	p, err := PricesIn("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// item finds a line of the bill.
func item(t *testing.T, e Estimate, name string) LineItem {
	t.Helper()
	i := slices.IndexFunc(e.Items, func(one LineItem) bool { return one.Name == name })
	if i < 0 {
		t.Fatalf("no line %q in %+v", name, e.Items)
	}
	return e.Items[i]
}

func has(e Estimate, name string) bool {
	return slices.ContainsFunc(e.Items, func(one LineItem) bool { return one.Name == name })
}

// Capacity and proxy of the stages, worked out by hand.
func TestCostOfCapacityAndProxy(t *testing.T) {
	t.Parallel()
	developmentWithProxy := Development()
	developmentWithProxy.Proxy.Off = false
	withReader := developmentWithProxy
	withReader.WriterOnly = false
	for _, tt := range []struct {
		name           string
		spec           Spec
		floor, ceiling string // writer + reader + proxy
	}{
		{"development", Development(), "43.80 + 0.00 + 0.00 = 43.80", "175.20 + 0.00 + 0.00 = 175.20"},
		{"development, proxy", developmentWithProxy, "43.80 + 0.00 + 87.60 = 131.40", "175.20 + 0.00 + 87.60 = 262.80"},
		{"development, proxy, reader", withReader, "43.80 + 43.80 + 87.60 = 175.20", "175.20 + 175.20 + 87.60 = 438.00"},
		{"early production", EarlyProduction(), "43.80 + 43.80 + 87.60 = 175.20", "700.80 + 700.80 + 175.20 = 1576.80"},
		{"growth", Growth(), "175.20 + 175.20 + 87.60 = 438.00", "1401.60 + 1401.60 + 350.40 = 3153.60"},
		{"scale", Scale(), "350.40 + 350.40 + 87.60 = 788.40", "2803.20 + 2803.20 + 700.80 = 6307.20"},
	} {
		e, err := Cost(tt.spec, Usage{}, listPrices(t))
		if err != nil {
			t.Fatal(err)
		}
		amount := func(name string) Amount {
			if !has(e, name) {
				return Amount{}
			}
			return item(t, e, name).Amount
		}
		w, r, p := amount("Writer"), amount("Reader"), amount("RDS Proxy")
		if got := fmt.Sprintf("%.2f + %.2f + %.2f = %.2f", w.Floor, r.Floor, p.Floor, w.Floor+r.Floor+p.Floor); got != tt.floor {
			t.Errorf("%s: floor %s, want %s", tt.name, got, tt.floor)
		}
		if got := fmt.Sprintf("%.2f + %.2f + %.2f = %.2f", w.Ceiling, r.Ceiling, p.Ceiling, w.Ceiling+r.Ceiling+p.Ceiling); got != tt.ceiling {
			t.Errorf("%s: ceiling %s, want %s", tt.name, got, tt.ceiling)
		}
	}
}

// Whatever the Spec and the usage: sums add up, and floor <= expected <= ceiling on every line.
func TestCostIsConsistent(t *testing.T) {
	t.Parallel()
	secrets := EarlyProduction()
	secrets.Auth, secrets.IOOptimized, secrets.Insights.Advanced = Secrets, true, true
	paused := Development()
	paused.Capacity = Capacity{Max: 2, AutoPause: shortestPause}
	for _, spec := range []Spec{{}, Development(), EarlyProduction(), Growth(), Scale(), secrets, paused, {Readers: []Reader{{}, {Tier: 2}, {Tier: 15}}}} {
		most := spec.WithDefaults().Capacity.Max
		for _, usage := range []Usage{{}, {AverageACU: most, ReaderACU: most / 2, StorageGB: 1000, IOMillion: 300, BackupGB: 5}} {
			e, err := Cost(spec, usage, listPrices(t))
			if err != nil {
				t.Fatal(err)
			}
			var sum Amount
			for _, one := range e.Items {
				sum = sum.Plus(one.Amount)
				if one.Floor > one.Expected || one.Expected > one.Ceiling || one.How == "" || !strings.HasPrefix(one.Source, "https://aws.amazon.com/") {
					t.Errorf("%+v", one)
				}
			}
			if math.Abs(sum.Expected-e.Total.Expected) > 1e-9 || sum.Floor != e.Total.Floor || sum.Ceiling != e.Total.Ceiling {
				t.Errorf("lines add up to %+v, the total is %+v", sum, e.Total)
			}
		}
	}
}

func TestCostLines(t *testing.T) {
	t.Parallel()
	prices := listPrices(t)
	e, err := Cost(EarlyProduction(), Usage{AverageACU: 3, ReaderACU: 1.5, StorageGB: 200, IOMillion: 50, BackupGB: 100}, prices)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"Writer": 3 * 0.12 * 730, "Reader": 1.5 * 0.12 * 730, "RDS Proxy": 8 * 0.015 * 730, "Read-only endpoint": 2 * 0.01 * 730,
		"Storage": 20, "I/O": 10, "Backups": 2.1, "Secrets": 0.4,
	} {
		if got := item(t, e, name).Expected; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %g, want %g", name, got, want)
		}
	}
	if note := item(t, e, "RDS Proxy").Note; note != "charged for 8 ACU at least: $87.60 where the 1 ACU of the instances would come to $10.95" {
		t.Errorf("the proxy's minimum is not spelled out: %q", note)
	}

	// Above the minimum, the proxy follows the instances.
	if e, err = Cost(EarlyProduction(), Usage{AverageACU: 6, ReaderACU: 6}, prices); err != nil || math.Abs(item(t, e, "RDS Proxy").Expected-12*0.015*730) > 1e-9 {
		t.Errorf("%v, %+v", err, item(t, e, "RDS Proxy"))
	}

	// I/O-Optimized charges no I/O, secrets and advanced insights show, zones are counted.
	spec := EarlyProduction()
	spec.Auth, spec.IOOptimized, spec.Insights.Advanced = Secrets, true, true
	spec.Network.Subnets = []string{"subnet-0000000a", "subnet-0000000b", "subnet-0000000c"}
	if e, err = Cost(spec, Usage{AverageACU: 1, StorageGB: 100}, prices); err != nil {
		t.Fatal(err)
	}
	if has(e, "I/O") || math.Abs(item(t, e, "Storage").Expected-22.5) > 1e-9 || math.Abs(item(t, e, "Writer").Expected-0.16*730) > 1e-9 {
		t.Errorf("I/O-Optimized: %+v", e.Items)
	}
	if got := item(t, e, "Secrets").Expected; math.Abs(got-1.2) > 1e-9 { // the administrator, app, migrate
		t.Errorf("secrets: %g", got)
	}
	if got := item(t, e, "Read-only endpoint").Expected; math.Abs(got-3*0.01*730) > 1e-9 {
		t.Errorf("endpoint in three zones: %g", got)
	}
	if all := strings.Join(e.NotIncluded, "\n"); !strings.Contains(all, "advanced mode") || !strings.Contains(all, "VPC endpoint") {
		t.Errorf("not included: %s", all)
	}

	// An override is used.
	prices.ProxyACUHour = 0.02
	if e, err = Cost(EarlyProduction(), Usage{}, prices); err != nil || math.Abs(item(t, e, "RDS Proxy").Floor-116.8) > 1e-9 {
		t.Errorf("%v, %+v", err, item(t, e, "RDS Proxy"))
	}
}

func TestCostRefuses(t *testing.T) {
	t.Parallel()
	for want, usage := range map[string]Usage{
		"an instance cannot average 9 ACU with a capacity of 0.5 to 8":   {AverageACU: 9},
		"an instance cannot average 0.2 ACU with a capacity of 0.5 to 8": {ReaderACU: 0.2},
		"the usage has an amount of -1":                                  {StorageGB: -1},
		"the usage has an amount of NaN":                                 {IOMillion: math.NaN()},
	} {
		if _, err := Cost(EarlyProduction(), usage, listPrices(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := Cost(Spec{Capacity: Capacity{Max: 300}}, Usage{}, listPrices(t)); !errors.Is(err, RuleCapacity) {
		t.Errorf("an invalid spec: %v", err)
	}
	if _, err := PricesIn("eu-central-9"); err == nil || !strings.Contains(err.Error(), "the table has eu-west-2 and us-east-1") {
		t.Error(err)
	}
}

// What explains the difference to the plan has to be true.
func TestStageCosts(t *testing.T) {
	t.Parallel()
	prices := listPrices(t)
	stages, err := StageCosts(Usage{}, prices)
	if err != nil || len(stages) != len(Stages()) {
		t.Fatal(err, len(stages))
	}
	for _, s := range stages {
		if s.Planned == "" || len(s.Explained) == 0 {
			t.Errorf("%s: planned %q, explained by %q", s.Name, s.Planned, s.Explained)
		}
	}
	// The bound that is printed, put in again: at it the plan holds, above it no more.
	var average float64
	for _, why := range stages[1].Explained {
		_, _ = fmt.Sscanf(why, "The planned upper end of $300 holds as long as instances average %f ACU or less.", &average)
	}
	for acu, holds := range map[float64]bool{average: true, average + 0.02: false} {
		e, err := Cost(EarlyProduction(), Usage{AverageACU: acu, ReaderACU: acu}, prices)
		if err != nil || (e.Total.Expected <= 300) != holds {
			t.Errorf("at %g ACU: $%.2f, %v", acu, e.Total.Expected, err)
		}
	}
}
