package aurora

// What AWS charges: a dated table of list prices, by region, with sources.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// PricesAsOf is when the table behind [PricesIn] was put together. The figures are those of AWS's
// price list as third parties published them from June to September 2026; the list itself
// (https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonRDS/current/index.json) was not
// read. Hold them against the pages they cite before you rely on them.
const PricesAsOf = "2026-09"

// Where AWS publishes its prices.
const (
	docAuroraPricing     = "https://aws.amazon.com/rds/aurora/pricing/"
	docProxyPricing      = "https://aws.amazon.com/rds/proxy/pricing/"
	docSecretsPricing    = "https://aws.amazon.com/secrets-manager/pricing/"
	docCloudWatchPricing = "https://aws.amazon.com/cloudwatch/pricing/"
	docEndpointPricing   = "https://aws.amazon.com/privatelink/pricing/"
)

// Prices are those of one region, in US dollars before tax and discounts. [PricesIn] has list
// prices; change what differs for you, or fill in all of it for another region.
type Prices struct {
	Region string `json:"region"`
	AsOf   string `json:"asOf"`

	// Aurora, https://aws.amazon.com/rds/aurora/pricing/.
	ACUHour                   float64 `json:"acuHour"`                   // an ACU for an hour, Aurora Standard
	ACUHourIOOptimized        float64 `json:"acuHourIOOptimized"`        // the same, I/O-Optimized; some pages say 0.156 for us-east-1
	StorageGBMonth            float64 `json:"storageGBMonth"`            // Aurora Standard
	StorageGBMonthIOOptimized float64 `json:"storageGBMonthIOOptimized"` // I/O-Optimized
	IOMillion                 float64 `json:"ioMillion"`                 // a million I/O requests; none are charged with I/O-Optimized
	BackupGBMonth             float64 `json:"backupGBMonth"`             // beyond what is free

	// RDS Proxy, https://aws.amazon.com/rds/proxy/pricing/: an hour of each ACU of the cluster's
	// instances, and no fewer than ProxyMinimumACU of them.
	ProxyACUHour    float64 `json:"proxyACUHour"`
	ProxyMinimumACU float64 `json:"proxyMinimumACU"`

	// An endpoint of the proxy beyond its first is an interface endpoint, charged by the hour and
	// availability zone: https://aws.amazon.com/privatelink/pricing/.
	EndpointAZHour float64 `json:"endpointAZHour"`

	SecretMonth    float64 `json:"secretMonth"`    // https://aws.amazon.com/secrets-manager/pricing/
	AlarmMonth     float64 `json:"alarmMonth"`     // standard resolution, https://aws.amazon.com/cloudwatch/pricing/
	DashboardMonth float64 `json:"dashboardMonth"` // beyond the account's three free ones, same page
}

// priceList has the regions whose prices are known here. Two figures of eu-west-2 are not confirmed:
// I/O-Optimized storage is taken as 2.25 times Standard, as it is elsewhere, and EndpointAZHour
// is what most of Europe pays.
var priceList = map[string]Prices{
	"us-east-1": {
		ACUHour: 0.12, ACUHourIOOptimized: 0.16,
		StorageGBMonth: 0.10, StorageGBMonthIOOptimized: 0.225, IOMillion: 0.20, BackupGBMonth: 0.021,
		ProxyACUHour: 0.015, ProxyMinimumACU: 8, EndpointAZHour: 0.01,
		SecretMonth: 0.40, AlarmMonth: 0.10, DashboardMonth: 3,
	},
	"eu-west-2": {
		ACUHour: 0.14, ACUHourIOOptimized: 0.19,
		StorageGBMonth: 0.10, StorageGBMonthIOOptimized: 0.225, IOMillion: 0.20, BackupGBMonth: 0.022,
		ProxyACUHour: 0.018, ProxyMinimumACU: 8, EndpointAZHour: 0.011,
		SecretMonth: 0.40, AlarmMonth: 0.10, DashboardMonth: 3,
	},
}

// PricesIn returns the list prices of a region. The error for a region that is not in the table
// names those that are.
func PricesIn(region string) (Prices, error) {
	p, ok := priceList[region]
	if !ok {
		return Prices{}, fmt.Errorf("aurora: no prices for region %q: the table has %s; take the figures from %s and fill in a Prices",
			region, strings.Join(PriceRegions(), " and "), docAuroraPricing)
	}
	p.Region, p.AsOf = region, PricesAsOf
	return p, nil
}

// PriceRegions lists the regions that [PricesIn] knows, in alphabetical order.
func PriceRegions() []string { return slices.Sorted(maps.Keys(priceList)) }
