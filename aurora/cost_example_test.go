package aurora_test

import (
	"fmt"

	"github.com/aurorapgx/aurorapgx/aurora"
)

func ExampleCost() {
	prices, err := aurora.PricesIn("us-east-1")
	if err != nil {
		panic(err)
	}
	estimate, err := aurora.Cost(aurora.EarlyProduction(), aurora.Usage{AverageACU: 1.5, StorageGB: 50}, prices)
	if err != nil {
		panic(err)
	}
	for _, item := range estimate.Items[:3] {
		fmt.Printf("%-10s %6.2f %6.2f %7.2f\n", item.Name, item.Floor, item.Expected, item.Ceiling)
	}
	fmt.Println(estimate.Items[2].Note)
	// Output:
	// Writer      43.80 131.40  700.80
	// Reader      43.80 131.40  700.80
	// RDS Proxy   87.60  87.60  175.20
	// charged for 8 ACU at least: $87.60 where the 1 ACU of the instances would come to $10.95
}
