package aurora_test

import (
	"fmt"

	"github.com/aurorapgx/aurorapgx/aurora"
)

func ExampleConnectionBudget() {
	budget, err := aurora.ConnectionBudget(aurora.Growth(),
		aurora.Client{Name: "api", Tasks: 20},
		aurora.Client{Name: "jobs", Tasks: 4, MaxConns: 5})
	if err != nil {
		panic(err)
	}
	fmt.Println(budget.MaxConnections, budget.Writer.Connections, budget.Writer.Usable)
	for _, c := range budget.Clients {
		fmt.Println(c.Name, c.MaxConns)
	}
	// Output:
	// 3360 3024 2326
	// api 115
	// jobs 5
}
