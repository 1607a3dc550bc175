package aurora_test

import (
	"fmt"

	"github.com/aurorapgx/aurorapgx/aurora"
)

func ExampleDiff() {
	before := aurora.Spec{Name: "orders"}
	after := aurora.Spec{Name: "orders2", Capacity: aurora.Capacity{Max: 32}}
	deployed, err := before.Template()
	if err != nil {
		panic(err)
	}
	next, err := after.Template()
	if err != nil {
		panic(err)
	}
	changes, err := aurora.Diff(deployed, next)
	if err != nil {
		panic(err)
	}
	for _, c := range changes {
		if c.Type == "AWS::RDS::DBCluster" {
			fmt.Println(c.Effect, c.Path, c.Before, c.After)
		}
	}
	// Output:
	// replace Properties.DBClusterIdentifier orders orders2
	// update Properties.ServerlessV2ScalingConfiguration.MaxCapacity 16 32
}
