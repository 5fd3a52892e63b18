#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Lets clients of the poolers wait while there is no primary, instead of being refused.
#
# PgBouncer queues clients only until a login to the server has failed; from then on it refuses every query (check_fast_fail in its objects.c), and Odoo
# answers that with errors and ends the session of whoever loads a page. While it is paused it queues them all. So this asks PostgreSQL a few times
# a second, by the way the poolers go, for anything that only a server gives that takes new connections: the demand for a password. It has none, so it
# never logs in. One that is shutting down, or that no longer lets poolers in (the postgresql role closes the door before it stops), does not give it.
#
#   hold.sh HOST PORT ROLE CONSOLE_PORT...
set -u

host=$1 port=$2 role=$3
shift 3
consoles=("$@")

# Half a second: HAProxy says no after one at the earliest, and by then PgBouncer must be paused.
primary_takes_connections() {
  local words
  words=$(timeout 0.5 psql "host=$host port=$port user=$role dbname=postgres sslmode=require" --no-password --no-psqlrc -c '' 2>&1)
  [[ $words == *password* ]]
}

# PAUSE holds from the moment it is said, and only then waits for transactions to end. It need not be waited for.
tell() {
  local console
  for console in "${consoles[@]}"; do
    timeout 0.5 psql --host=/run/pgbouncer --port="$console" --username=pgbouncer --dbname=pgbouncer --no-psqlrc --quiet -c "$1" > /dev/null 2>&1 &
  done
  wait
}

# Nobody is held by something that no longer looks.
trap 'tell RESUME; exit 0' TERM INT

held=unknown # by whatever ran here before
while :; do
  if primary_takes_connections; then
    if [[ $held != no ]]; then
      tell RESUME
      echo "a primary takes connections"
    fi
    held=no
  else
    [[ $held == yes ]] || echo "no primary takes connections, clients wait"
    held=yes
    # Again each time: a pooler that was restarted meanwhile does not know.
    tell PAUSE
  fi
  touch /tmp/alive
  sleep 0.2
done
