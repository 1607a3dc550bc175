package main

import "context"

const renderHelp = `
Prints the CloudFormation template of a spec: JSON without transforms or assets, the same
bytes for the same spec, for whatever deploys it:

  aurorapgx render --stage growth --spec orders.json > orders.template.json
  aws cloudformation deploy --stack-name orders --template-file orders.template.json \
      --capabilities CAPABILITY_IAM --parameter-overrides VpcId=... SubnetIds=...,... \
      ClientSecurityGroupIds=...

Where the spec lets somebody connect past the proxy, DirectSecurityGroupIds=... is needed as well.
A spec that is not valid is not rendered; "validate" says what is wrong with it.
` + specHelp

func runRender(_ context.Context, p *program, args []string) error {
	f := p.flags("render", "[--stage NAME] [--spec FILE]", renderHelp)
	from := f.spec()
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	template, err := spec.Template()
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(template)
	return err
}
