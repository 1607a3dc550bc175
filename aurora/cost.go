package aurora

// What a Spec costs: a floor, an expectation and a ceiling for each line of the bill, never
// one number.

import (
	"fmt"
	"strconv"
	"strings"
)

// hoursPerMonth is the month that AWS's calculator uses.
const hoursPerMonth = 730

// Usage is what a bill depends on beside the Spec. Zero values stand for assumptions, which the
// [Estimate] spells out.
type Usage struct {
	// AverageACU is the writer's capacity averaged over a month, pauses included: the average of the
	// metric ServerlessDatabaseCapacity with the instance as its dimension. Default: a fifth of the
	// way from the minimum to the maximum.
	AverageACU float64 `json:"averageACU,omitempty"`
	// ReaderACU is the same for each reader. Default: as the writer, which readers in
	// tier 1 follow anyway.
	ReaderACU float64 `json:"readerACU,omitempty"`
	// StorageGB is what the data takes. Default 20.
	StorageGB float64 `json:"storageGB,omitempty"`
	// IOMillion is millions of I/O requests a month; Aurora Standard charges for them. Default 10.
	IOMillion float64 `json:"ioMillion,omitempty"`
	// BackupGB is backup storage beyond what is free, which is as much as the data takes. Default:
	// as much again, and nothing with a retention of one day.
	BackupGB float64 `json:"backupGB,omitempty"`
}

// Amount is dollars a month: at least, expected, at most.
type Amount struct {
	Floor    float64 `json:"floor"`    // every instance at its minimum all month
	Expected float64 `json:"expected"` // as the Usage says
	Ceiling  float64 `json:"ceiling"`  // every instance at its maximum all month
}

// Plus adds two amounts.
func (a Amount) Plus(b Amount) Amount {
	return Amount{a.Floor + b.Floor, a.Expected + b.Expected, a.Ceiling + b.Ceiling}
}

// LineItem is one line of the bill.
type LineItem struct {
	Name   string `json:"name"`
	Amount        // a month
	How    string `json:"how"`            // what is multiplied, from floor to ceiling
	Note   string `json:"note,omitempty"` // what one might not expect
	Source string `json:"source"`         // where AWS publishes the price
}

// Estimate is what a month costs, in US dollars before tax and discounts.
type Estimate struct {
	Region      string     `json:"region"`
	PricesAsOf  string     `json:"pricesAsOf"`
	Items       []LineItem `json:"items"`
	Total       Amount     `json:"total"`
	Assumptions []string   `json:"assumptions"`
	NotIncluded []string   `json:"notIncluded"`
}

// Cost estimates a month of the Spec with these prices. The Spec has to be valid. The ceiling
// holds for what the Spec bounds, which is capacity: storage and I/O have no bound and stand as the
// usage has them.
func Cost(spec Spec, usage Usage, prices Prices) (Estimate, error) {
	b, err := newBill(spec, prices)
	if err != nil {
		return Estimate{}, err
	}
	return b.estimate(usage)
}

// bill is an estimate in the making.
type bill struct {
	Estimate

	spec   Spec // with defaults
	usage  Usage
	prices Prices
	count  map[string]int // resources of the template by type
}

func newBill(spec Spec, prices Prices) (bill, error) {
	resources, err := spec.Explain()
	if err != nil {
		return bill{}, err
	}
	b := bill{spec: spec.WithDefaults(), prices: prices, count: map[string]int{}}
	for _, r := range resources {
		b.count[r.Type]++
	}
	b.Region, b.PricesAsOf = prices.Region, prices.AsOf
	return b, nil
}

// estimate works on a copy, so that one bill can be estimated for several usages.
func (b *bill) estimate(usage Usage) (Estimate, error) {
	one := *b
	return one.total(usage)
}

func (b *bill) total(usage Usage) (Estimate, error) {
	b.usage = usage
	if err := b.assume(); err != nil {
		return Estimate{}, fmt.Errorf("aurora: cost: %w", err)
	}
	b.capacity()
	b.proxy()
	b.storage()
	b.small()
	b.leftOut()
	for _, item := range b.Items {
		b.Total = b.Total.Plus(item.Amount)
	}
	return b.Estimate, nil
}

// assume fills in the usage and says what it took for granted.
func (b *bill) assume() error {
	c, u := b.spec.Capacity, &b.usage
	if u.AverageACU == 0 {
		u.AverageACU = c.Min + (c.Max-c.Min)/5
		b.Assumptions = append(b.Assumptions, fmt.Sprintf("the writer averages %s ACU, a fifth of the way from %s to %s", decimal(u.AverageACU), decimal(c.Min), decimal(c.Max)))
	}
	if u.ReaderACU == 0 && len(b.spec.Readers) > 0 {
		u.ReaderACU = u.AverageACU
		b.Assumptions = append(b.Assumptions, "readers average as much as the writer")
	}
	for _, acu := range []float64{u.AverageACU, u.ReaderACU} {
		if acu != 0 && !(acu >= c.Min && acu <= c.Max) {
			return fmt.Errorf("an instance cannot average %s ACU with a capacity of %s to %s", decimal(acu), decimal(c.Min), decimal(c.Max))
		}
	}
	for _, amount := range []float64{u.StorageGB, u.IOMillion, u.BackupGB} {
		if !(amount >= 0) {
			return fmt.Errorf("the usage has an amount of %v; write 0 for the default, or more", amount)
		}
	}
	if u.StorageGB == 0 {
		u.StorageGB = 20
		b.Assumptions = append(b.Assumptions, "20 GB of data")
	}
	if u.IOMillion == 0 && !b.spec.IOOptimized {
		u.IOMillion = 10
		b.Assumptions = append(b.Assumptions, "10 million I/O requests a month")
	}
	if u.BackupGB == 0 && b.spec.Backup.Days > 1 {
		u.BackupGB = u.StorageGB
		b.Assumptions = append(b.Assumptions, "backups take as much as the data beyond what is free")
	}
	return nil
}

func (b *bill) add(item LineItem) { b.Items = append(b.Items, item) }

// allACU is the ACU of all instances, which is what the proxy is charged by.
func (b *bill) allACU() (floor, expected, ceiling float64) {
	c, readers := b.spec.Capacity, float64(len(b.spec.Readers))
	return c.Min * (1 + readers), b.usage.AverageACU + b.usage.ReaderACU*readers, c.Max * (1 + readers)
}

func (b *bill) capacity() {
	price, mode := b.prices.ACUHour, "Aurora Standard"
	if b.spec.IOOptimized {
		price, mode = b.prices.ACUHourIOOptimized, "I/O-Optimized"
	}
	line := func(name string, instances, average float64) LineItem {
		c, hours := b.spec.Capacity, instances*price*hoursPerMonth
		return LineItem{
			Name: name, Amount: Amount{c.Min * hours, average * hours, c.Max * hours},
			How:    fmt.Sprintf("%s ACU x $%s (%s) x %d h", fromTo(c.Min*instances, c.Max*instances), cents(price), mode, hoursPerMonth),
			Source: docAuroraPricing,
		}
	}
	writer := line("Writer", 1, b.usage.AverageACU)
	if b.spec.Capacity.AutoPause > 0 {
		writer.Note = "nothing while paused; an instance that never pauses is at 0.5 ACU or more"
	} else if !b.spec.Insights.Off && b.spec.Capacity.Min < 2 {
		writer.Note = "Database Insights may keep an instance above a minimum of less than 2 ACU"
	}
	b.add(writer)
	if n := len(b.spec.Readers); n > 0 {
		name := "Reader"
		if n > 1 {
			name = strconv.Itoa(n) + " readers"
		}
		b.add(line(name, float64(n), b.usage.ReaderACU))
	}
}

// proxy spells out the minimum: below it, the proxy costs more than the database.
func (b *bill) proxy() {
	if b.spec.Proxy.Off {
		return
	}
	hour := b.prices.ProxyACUHour * hoursPerMonth
	floor, expected, ceiling := b.allACU()
	charged := func(acu float64) float64 { return max(acu, b.prices.ProxyMinimumACU) * hour }
	item := LineItem{
		Name: "RDS Proxy", Amount: Amount{charged(floor), charged(expected), charged(ceiling)},
		How:    fmt.Sprintf("%s ACU x $%s x %d h", fromTo(max(floor, b.prices.ProxyMinimumACU), max(ceiling, b.prices.ProxyMinimumACU)), cents(b.prices.ProxyACUHour), hoursPerMonth),
		Source: docProxyPricing,
	}
	if floor < b.prices.ProxyMinimumACU {
		item.Note = fmt.Sprintf("charged for %s ACU at least: $%.2f where the %s ACU of the instances would come to $%.2f",
			decimal(b.prices.ProxyMinimumACU), item.Floor, decimal(floor), floor*hour)
	}
	b.add(item)
	if n := b.count["AWS::RDS::DBProxyEndpoint"]; n > 0 {
		zones := b.zones()
		month := float64(n) * b.prices.EndpointAZHour * hoursPerMonth
		b.add(LineItem{
			Name: "Read-only endpoint", Amount: same(float64(zones) * month),
			How:    fmt.Sprintf("%d zones x $%s x %d h", zones, cents(b.prices.EndpointAZHour), hoursPerMonth),
			Note:   "an endpoint beyond the proxy's first is charged as an interface endpoint, in each zone of the subnets; Proxy.NoReaderEndpoint does without",
			Source: docEndpointPricing,
		})
	}
}

// zones is in how many availability zones the subnets are.
func (b *bill) zones() int {
	zones := map[string]bool{}
	for _, id := range b.spec.Network.ZoneIDs {
		zones[id] = true
	}
	switch {
	case len(zones) > 0:
		return len(zones)
	case len(b.spec.Network.Subnets) > 0:
		return len(b.spec.Network.Subnets)
	default:
		b.Assumptions = append(b.Assumptions, "subnets in two availability zones")
		return 2
	}
}

func (b *bill) storage() {
	price := b.prices.StorageGBMonth
	if b.spec.IOOptimized {
		price = b.prices.StorageGBMonthIOOptimized
	}
	gb := b.usage.StorageGB
	b.add(LineItem{
		Name: "Storage", Amount: same(gb * price), Source: docAuroraPricing,
		How: fmt.Sprintf("%s GB x $%s", decimal(gb), cents(price)),
	})
	if !b.spec.IOOptimized {
		m := b.usage.IOMillion
		b.add(LineItem{
			Name: "I/O", Amount: Amount{0, m * b.prices.IOMillion, m * b.prices.IOMillion}, Source: docAuroraPricing,
			How: fmt.Sprintf("0 to %s million x $%s", decimal(m), cents(b.prices.IOMillion)), Note: "grows with use, without a bound",
		})
	}
	if gb := b.usage.BackupGB; gb > 0 {
		b.add(LineItem{
			Name: "Backups", Amount: Amount{0, gb * b.prices.BackupGBMonth, gb * b.prices.BackupGBMonth}, Source: docAuroraPricing,
			How: fmt.Sprintf("0 to %s GB x $%s", decimal(gb), cents(b.prices.BackupGBMonth)), Note: "as much as the data takes is free",
		})
	}
}

// small are the lines that are counted in the template.
func (b *bill) small() {
	secrets := 1 + b.count["AWS::SecretsManager::Secret"]
	b.add(LineItem{
		Name: "Secrets", Amount: same(float64(secrets) * b.prices.SecretMonth), Source: docSecretsPricing,
		How: fmt.Sprintf("%d x $%s", secrets, cents(b.prices.SecretMonth)), Note: "the administrator's is one",
	})
	if n := b.count["AWS::CloudWatch::Alarm"]; n > 0 {
		b.add(LineItem{
			Name: "Alarms", Amount: same(float64(n) * b.prices.AlarmMonth), Source: docCloudWatchPricing,
			How: fmt.Sprintf("%d x $%s", n, cents(b.prices.AlarmMonth)), Note: "ten in an account are free, which is not counted here",
		})
	}
	if n := b.count["AWS::CloudWatch::Dashboard"]; n > 0 {
		month := float64(n) * b.prices.DashboardMonth
		b.add(LineItem{
			Name: "Dashboard", Amount: Amount{0, 0, month}, Source: docCloudWatchPricing,
			How: fmt.Sprintf("0 to %d x $%s", n, cents(b.prices.DashboardMonth)), Note: "three in an account are free",
		})
	}
}

func (b *bill) leftOut() {
	b.NotIncluded = []string{"traffic between availability zones and out of AWS", "what CloudWatch Logs takes for storing logs"}
	if b.spec.Insights.Advanced {
		b.NotIncluded = append(b.NotIncluded, "Database Insights in advanced mode, charged by ACU-hour: "+docCloudWatchPricing)
	}
	if b.spec.Auth == Secrets {
		b.NotIncluded = append(b.NotIncluded, "a VPC endpoint or NAT for Secrets Manager, which clients in isolated subnets need: "+docEndpointPricing)
	}
	if b.spec.KMSKey != "" {
		b.NotIncluded = append(b.NotIncluded, "the KMS key")
	}
}

func same(dollars float64) Amount { return Amount{dollars, dollars, dollars} }

func fromTo(floor, ceiling float64) string {
	if floor == ceiling {
		return decimal(floor)
	}
	return decimal(floor) + " to " + decimal(ceiling)
}

// decimal writes a number without more digits than it has, three at most.
func decimal(v float64) string {
	text := strconv.FormatFloat(v, 'f', 3, 64)
	return strings.TrimRight(strings.TrimRight(text, "0"), ".")
}

// cents writes a price, with two digits behind the point or as many as it has.
func cents(price float64) string {
	text := decimal(price)
	_, fraction, _ := strings.Cut(text, ".")
	if len(fraction) >= 2 {
		return text
	}
	return strconv.FormatFloat(price, 'f', 2, 64)
}
