#!/bin/sh
# Deploys orders.json to AWS and creates its users. It needs the AWS CLI with credentials, Go and
# psql, and has to run on a machine in the VPC, because the cluster has no public address, with one of
# DIRECT_SECURITY_GROUP_IDS, because the users are created past the proxy. What it needs to know of the
# network:
#
#   VPC_ID=vpc-... SUBNET_IDS=subnet-...,subnet-... CLIENT_SECURITY_GROUP_IDS=sg-... \
#   DIRECT_SECURITY_GROUP_IDS=sg-... ./deploy.sh
#
# Groups keep their places from one run to the next: new ones are appended, because EC2 refuses the
# rule for a group that moves.
#
# It may be run again after every change of orders.json; a change that would replace something is
# shown and not deployed, unless REPLACE=yes.
set -eu
cd "$(dirname "$0")"
: "${VPC_ID:?the VPC, vpc-...}" "${SUBNET_IDS:?private subnets in two zones, subnet-...,subnet-...}"
: "${CLIENT_SECURITY_GROUP_IDS:?the security groups that may connect to the proxy, sg-...}"
: "${DIRECT_SECURITY_GROUP_IDS:?the security groups that may connect to the cluster itself, of this machine among others, sg-...}"
stack=${STACK:-orders}
aurorapgx=${AURORAPGX:-go run github.com/aurorapgx/aurorapgx/cmd/aurorapgx}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

$aurorapgx validate --spec orders.json
$aurorapgx render --spec orders.json >"$work/template.json"
if aws cloudformation get-template --stack-name "$stack" --output json >"$work/deployed.json" 2>"$work/error"; then
	$aurorapgx diff --spec orders.json "$work/deployed.json" || [ "${REPLACE:-no}" = yes ]
elif ! grep -q 'does not exist' "$work/error"; then
	cat "$work/error" >&2
	exit 1
fi

aws cloudformation deploy --stack-name "$stack" --template-file "$work/template.json" --capabilities CAPABILITY_IAM \
	--no-fail-on-empty-changeset --parameter-overrides \
	"VpcId=$VPC_ID" "SubnetIds=$SUBNET_IDS" "ClientSecurityGroupIds=$CLIENT_SECURITY_GROUP_IDS" \
	"DirectSecurityGroupIds=$DIRECT_SECURITY_GROUP_IDS"

# The users. The administrator's password goes from its secret into psql's environment and nowhere
# else; they go to the cluster itself because the proxy does not know the administrator.
aws cloudformation describe-stacks --stack-name "$stack" --output json >"$work/outputs.json"
environment=$($aurorapgx env --export "$work/outputs.json") # within eval, a failure would not count
eval "$environment"
PGHOST=$AURORA_CLUSTER_HOST
PGUSER=$(aws rds describe-db-clusters --db-cluster-identifier "$AURORA_CLUSTER_ARN" --query 'DBClusters[0].MasterUsername' --output text)
secret=$(aws secretsmanager get-secret-value --secret-id "$AURORA_MASTER_SECRET_ARN" --query SecretString --output text)
PGPASSWORD=$(printf '%s' "$secret" | sed -n 's/.*"password" *: *"\(\([^"\\]\|\\.\)*\)".*/\1/p' | sed 's/\\\(.\)/\1/g')
PGDATABASE=$AURORA_DATABASE PGSSLMODE=${PGSSLMODE:-verify-full} PGSSLROOTCERT=${PGSSLROOTCERT:-global-bundle.pem}
export PGHOST PGUSER PGPASSWORD PGDATABASE PGSSLMODE PGSSLROOTCERT
[ "$PGSSLMODE" != verify-full ] || [ -f "$PGSSLROOTCERT" ] || {
	echo "get $PGSSLROOTCERT from https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem" >&2
	exit 1
}
# A file and no pipe: sh does not see that what is before a pipe fails, and psql would run a part of it.
$aurorapgx sql --spec orders.json >"$work/users.sql"
psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 <"$work/users.sql"

echo "deployed; a service that logs in as $AURORA_USER gets:"
$aurorapgx env "$work/outputs.json"
