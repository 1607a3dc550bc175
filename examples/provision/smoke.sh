#!/bin/sh
# Looks whether a deployed stack works, from a machine in the VPC whose role has the policy of the
# user (output PolicyArn...): the proxy has its targets, a token is accepted, the user can do a
# query and is who it should be. It needs the AWS CLI, Go and psql, and changes nothing.
#
#   ./smoke.sh [USER]
set -eu
cd "$(dirname "$0")"
stack=${STACK:-orders}
aurorapgx=${AURORAPGX:-go run github.com/aurorapgx/aurorapgx/cmd/aurorapgx}
# One after the other: neither a pipe nor eval fails with what is in it.
outputs=$(aws cloudformation describe-stacks --stack-name "$stack" --output json)
environment=$(printf '%s' "$outputs" | $aurorapgx env --export --user "${1:-}")
eval "$environment"

states=$(aws rds describe-db-proxy-targets --db-proxy-name "$stack" --query 'Targets[?Type==`RDS_INSTANCE`].TargetHealth.State' --output text)
for state in ${states:-none}; do
	[ "$state" = AVAILABLE ] || {
		echo "the proxy's targets are $states; see aws rds describe-db-proxy-targets --db-proxy-name $stack" >&2
		exit 1
	}
done
PGPASSWORD=$(aws rds generate-db-auth-token --hostname "$AURORA_HOST" --port "$AURORA_PORT" --region "$AURORA_REGION" --username "$AURORA_USER")
export PGPASSWORD
who=$(psql --no-psqlrc -Atq -c 'select current_user' \
	"host=$AURORA_HOST port=$AURORA_PORT dbname=$AURORA_DATABASE user=$AURORA_USER sslmode=verify-full sslrootcert=${PGSSLROOTCERT:-system}")
[ "$who" = "$AURORA_USER" ] || {
	echo "logged in as $AURORA_USER and is $who" >&2
	exit 1
}
echo "ok: $who at $AURORA_HOST"
