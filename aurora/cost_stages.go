package aurora

// The stages against what was first thought they would cost.

import (
	"fmt"
	"strings"
	"time"
)

// shortestPause is the shortest Capacity.AutoPause there is.
const shortestPause = 5 * time.Minute

// StageCost is a stage's estimate beside the figure the stage was planned with.
type StageCost struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Capacity Capacity `json:"capacity"`
	Planned  string   `json:"planned"` // a month, as it was written
	Estimate Estimate `json:"estimate"`
	// Explained says where the difference comes from.
	Explained []string `json:"explained"`
}

// planned is what the stages were first thought to cost a month, without RDS Proxy. 0 is no bound.
var planned = map[string]struct {
	text      string
	low, high float64
}{
	"development":      {"~$50", 0, 50},
	"early-production": {"~$100-300", 100, 300},
	"growth":           {"~$300-1000", 300, 1000},
	"scale":            {"$1000+", 1000, 0},
}

// StageCosts estimates every stage with these prices.
func StageCosts(usage Usage, prices Prices) ([]StageCost, error) {
	var all []StageCost
	for _, stage := range Stages() {
		c, err := stageCost(stage, usage, prices)
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", stage.Name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func stageCost(stage Stage, usage Usage, prices Prices) (StageCost, error) {
	b, err := newBill(stage.Spec, prices)
	if err != nil {
		return StageCost{}, err
	}
	e, err := b.estimate(usage)
	if err != nil {
		return StageCost{}, err
	}
	c := StageCost{Name: stage.Name, Title: stage.Title, Capacity: b.spec.Capacity, Planned: planned[stage.Name].text, Estimate: e}
	c.Explained = []string{whatThePlanSaw(e)}
	c.Explained = append(c.Explained, heldAgainst(planned[stage.Name].low, planned[stage.Name].high, &b, usage, e)...)
	if stage.Spec.Proxy.Off {
		variants, err := cheaperOrDearer(stage.Spec, usage, prices)
		if err != nil {
			return StageCost{}, err
		}
		c.Explained = append(c.Explained, variants...)
	}
	return c, nil
}

// whatThePlanSaw takes the floor apart: the plan was for one writer.
func whatThePlanSaw(e Estimate) string {
	writer, rest := 0.0, 0.0
	var more []string
	for _, item := range e.Items {
		switch {
		case item.Name == "Writer":
			writer = item.Floor
		case item.Floor >= 5:
			more = append(more, fmt.Sprintf("%s $%.2f", lowerFirst(item.Name), item.Floor))
		default:
			rest += item.Floor
		}
	}
	more = append(more, fmt.Sprintf("everything else $%.2f", rest))
	return fmt.Sprintf("Of the floor, the plan had the writer ($%.2f). It did not have: %s.", writer, strings.Join(more, ", "))
}

// heldAgainst says whether the plan can be kept, and how.
func heldAgainst(low, high float64, b *bill, usage Usage, e Estimate) []string {
	var why []string
	if low > e.Total.Floor {
		why = append(why, fmt.Sprintf("The planned $%.0f and more holds: the floor is below it.", low))
	} else if low > 0 {
		why = append(why, fmt.Sprintf("The planned lower end of $%.0f is below the floor.", low))
	}
	if high == 0 {
		return why
	}
	if average, ok := averageFor(b, usage, high); ok {
		return append(why, fmt.Sprintf("The planned upper end of $%.0f holds as long as instances average %.2f ACU or less.", high, average))
	}
	return append(why, fmt.Sprintf("The planned $%.0f is below the floor.", high))
}

// cheaperOrDearer is what a stage without a proxy would cost with one, and what it costs if it
// pauses.
func cheaperOrDearer(spec Spec, usage Usage, prices Prices) ([]string, error) {
	proxied, pausing := spec, spec
	proxied.Proxy.Off = false
	pausing.Capacity.Min, pausing.Capacity.AutoPause = 0, shortestPause
	with, err := Cost(proxied, usage, prices)
	if err != nil {
		return nil, err
	}
	paused, err := Cost(pausing, usage, prices)
	return []string{
		fmt.Sprintf("This stage does without the proxy the plan had in its picture. With one, its floor would be $%.2f.", with.Total.Floor),
		fmt.Sprintf("With Capacity.AutoPause, its floor is $%.2f.", paused.Total.Floor),
	}, err
}

// averageFor is the largest average ACU of each instance with which a sum is enough.
func averageFor(b *bill, usage Usage, dollars float64) (average float64, ok bool) {
	low, high := b.spec.Capacity.Min, b.spec.Capacity.Max
	enough := func(acu float64) bool {
		usage.AverageACU, usage.ReaderACU = acu, acu
		e, err := b.estimate(usage)
		return err == nil && e.Total.Expected <= dollars
	}
	if !enough(low) {
		return 0, false
	}
	for high-low > 0.005 {
		if middle := (low + high) / 2; enough(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low, true
}

func lowerFirst(name string) string {
	if strings.HasPrefix(name, "RDS") {
		return name
	}
	return strings.ToLower(name[:1]) + name[1:]
}
