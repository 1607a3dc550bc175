#!/bin/sh
# server.sh is every command pgtest runs on the host of a PostgreSQL server,
# be that host a container or this machine. It is handed to "sh -c" as text, so
# that an image needs nothing of ours, and it keeps to what dash, bash and
# busybox share. It runs as the user who owns the server, never as root.
#
#   PGTEST_DIR      the server's own directory: data, settings, log
#   PGTEST_BIN      PostgreSQL's binaries; looked for if empty
#   PGTEST_CONF     the text of postgresql.conf
#   PGTEST_PRIMARY  what to copy, for clone
#   PGPASSWORD      the superuser's password
set -eu
umask 077
export LC_ALL=C

dir=$PGTEST_DIR
data=$dir/data
conf=$dir/postgresql.conf
log=$dir/server.log

if [ -z "${PGTEST_BIN:-}" ]; then
	for bin in /usr/bin /usr/local/bin /usr/lib/postgresql/*/bin; do
		if [ -x "$bin/initdb" ]; then PGTEST_BIN=$bin; fi
	done
fi
if [ -z "${PGTEST_BIN:-}" ]; then
	echo "no initdb found in this image" >&2
	exit 1
fi

# alive says whether a process runs. A zombie does not: as the first process of
# a container nobody may be there to bury it.
alive() {
	if [ -d /proc/self ]; then
		grep -qs '^State:[[:space:]]*[^XZ[:space:]]' "/proc/$1/status"
	else
		kill -0 "$1" 2>/dev/null
	fi
}

# postmaster prints the process id of the running server, if there is one. The
# number in the file may since have gone to some other process, hence the look
# at the working directory, which for a server is its data.
postmaster() {
	[ -s "$data/postmaster.pid" ] || return 1
	pid=$(head -n 1 "$data/postmaster.pid")
	alive "$pid" || return 1
	if [ -d /proc/self ]; then
		[ "$(readlink "/proc/$pid/cwd")" = "$(cd "$data" && pwd -P)" ] || return 1
	fi
	echo "$pid"
}

children() {
	if [ -d /proc/self ]; then
		grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | cut -d / -f 3 || :
	else
		pgrep -P "$1" || :
	fi
}

# crash ends the server the way a crash does: nobody gets to say goodbye. The
# postmaster is halted first, or it would start new processes meanwhile.
crash() {
	pid=$(postmaster) || return 0
	kill -STOP "$pid" 2>/dev/null || return 0
	doomed="$pid $(children "$pid")"
	for pid in $doomed; do kill -KILL "$pid" 2>/dev/null || :; done
	for pid in $doomed; do
		while alive "$pid"; do sleep 0.02; done
	done
	# All of them are known to be gone, so this file can only mislead: the next
	# start would refuse if its process id had been given away.
	rm -f "$data/postmaster.pid"
}

write_conf() {
	printf '%s' "$PGTEST_CONF" >"$conf"
}

init() {
	mkdir -p "$dir"
	printf '%s' "$PGPASSWORD" >"$dir/password"
	set -- -D "$data" -U postgres --pwfile="$dir/password" --auth=scram-sha-256 \
		--encoding=UTF8 --no-sync --no-instructions
	# Some systems have no C.UTF-8; plain C sorts the same.
	"$PGTEST_BIN/initdb" "$@" --locale=C.UTF-8 >"$log" 2>&1 ||
		"$PGTEST_BIN/initdb" "$@" --locale=C >"$log" 2>&1 ||
		{ cat "$log" >&2; exit 1; }
	rm -f "$dir/password"
	# No trust and no peer: everybody shows a password, as on Aurora.
	printf 'host all all all scram-sha-256\nhost replication all all scram-sha-256\n' \
		>"$data/pg_hba.conf"
}

clone() {
	crash
	mkdir -p "$dir"
	rm -rf "$data"
	"$PGTEST_BIN/pg_basebackup" -D "$data" -d "$PGTEST_PRIMARY" \
		--wal-method=stream --checkpoint=fast --no-sync
	touch "$data/standby.signal"
}

# demote makes a server that was stopped start as a standby.
demote() {
	touch "$data/standby.signal"
}

start() {
	write_conf
	: >"$log"
	"$PGTEST_BIN/pg_ctl" start -D "$data" -s -w -t 60 -l "$log" \
		-o "-c config_file=\"$conf\"" ||
		{ echo "the server's log ends with:" >&2; tail -n 30 "$log" >&2; exit 1; }
}

stop() {
	postmaster >/dev/null || return 0
	"$PGTEST_BIN/pg_ctl" stop -D "$data" -s -m fast -w -t 60
}

case $1 in
hold)
	# Whoever started us holds the other end of our standard input, and the
	# kernel lets go of it for them however they end, by SIGKILL too.
	cat >/dev/null || :
	crash
	rm -rf "$dir" || :
	;;
reload)
	write_conf
	"$PGTEST_BIN/pg_ctl" reload -D "$data" -s
	;;
log) tail -n 30 "$log" ;;
init | clone | demote | start | stop | crash) "$1" ;;
*)
	echo "unknown command $1" >&2
	exit 2
	;;
esac
