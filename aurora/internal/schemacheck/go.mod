module github.com/aurorapgx/aurorapgx/aurora/internal/schemacheck

go 1.26.0

require (
	github.com/aurorapgx/aurorapgx v0.0.0
	github.com/aws-cloudformation/rain v1.23.1
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
)

require (
	golang.org/x/text v0.41.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/aurorapgx/aurorapgx => ../../..
