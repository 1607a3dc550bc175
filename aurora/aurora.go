// Package aurora turns one typed [Spec] into a production database: Aurora PostgreSQL
// Serverless v2, an RDS Proxy in front of it, users, alarms and a dashboard, as plain
// CloudFormation JSON that every deploy tool takes. It uses the standard library only.
//
// The zero Spec is a complete, safe cluster; the presets [Development],
// [EarlyProduction], [Growth] and [Scale] differ in capacity and in what an
// environment of that size can do without.
//
//	spec := aurora.EarlyProduction()
//	spec.Name = "orders"
//	template, err := spec.Template()
package aurora
