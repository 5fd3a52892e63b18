#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Start one of several Redis, or its Sentinel ($1), with this host's settings and with what was decided at run time: who follows whom. Both write that into
# the file that they were started with. It is made anew here, because everything else in it is the role's.
#
# Redis that is to stop while it is the primary hands over first, whoever stops it.
set -eu
umask 077
kind=$1
state=/var/lib/$kind/$kind.conf

# Of members that are not any more nothing is kept.
decided() {
  [ ! -e "$state" ] || awk -v members=" $BERTH_MEMBERS " -v quorum="$BERTH_QUORUM" '
    function known(name) { return index(members, " " name " ") }
    $1 == "replicaof" && known($2) { print }
    $1 == "sentinel" && $2 ~ /^(myid|current-epoch|config-epoch|leader-epoch)$/ { print }
    $1 == "sentinel" && $2 ~ /^known-(replica|sentinel)$/ && known($4) { print }
    $1 == "sentinel" && $2 == "monitor" && known($4) { print $1, $2, $3, $4, $5, quorum }
  ' "$state"
}
# Say something to this Redis, or to the Sentinel of host $1. The password is in the first line that it reads.
own() {
  { cat /etc/redis-secrets/login; echo "$1"; } | redis-cli -s /run/redis/redis.sock | tail -n +2
}
sentinel() {
  { cat /etc/redis-secrets/login; echo "$2"; } | redis-cli -t 2 -h "$1" -p 26379 --tls --cacert /etc/redis-tls/ca.crt | tail -n +2
}

# No write is taken any more, so that none is lost; clients ask the Sentinels again. Ten seconds at most for one Sentinel, then it stops as it is.
hand_over() {
  [ "$(own ROLE | head -n 1)" = master ] || return 0
  own 'CLIENT PAUSE 25000 WRITE' > /dev/null
  for host in $BERTH_SENTINELS; do
    answer=$(sentinel "$host" 'SENTINEL FAILOVER berth' 2>&1)
    echo "Handing over, $host says: $answer"
    case $answer in OK | *INPROG*) ;; *) continue ;; esac
    attempts=0
    while [ "$attempts" -lt 50 ]; do
      primary=$(sentinel "$host" 'SENTINEL GET-MASTER-ADDR-BY-NAME berth' | head -n 1)
      if [ -n "$primary" ] && [ "$primary" != "$BERTH_SELF" ]; then
        echo "$primary is the primary"
        # Said in the file, too: it starts as who follows.
        own "REPLICAOF $primary 6379" > /dev/null
        own 'CONFIG REWRITE' > /dev/null
        return 0
      fi
      attempts=$((attempts + 1))
      sleep 0.2
    done
    break
  done
  echo "Nobody took over: it stops as the primary"
  own 'CLIENT UNPAUSE' > /dev/null
}

kept=$(decided)
first=$(cat /etc/redis/first)
case $kind in
  redis)
    # One that has no such file was never a member. One that has it and follows nobody leads, or did: then the Sentinels tell it.
    if [ ! -e "$state" ] || { [ -z "$kept" ] && grep -q '^replicaof ' "$state"; }; then
      [ "$first" = "$BERTH_SELF" ] || kept="replicaof $first 6379"
    fi ;;
  sentinel)
    case $kept in
      *'sentinel monitor '*) ;;
      *) kept="$kept
sentinel monitor berth $first 6379 $BERTH_QUORUM" ;;
    esac ;;
esac
{
  cat "/etc/redis/$kind.conf" "/etc/redis-secrets/$kind.conf"
  printf '%s\n' "$kept"
} > "$state.new"
mv "$state.new" "$state"
[ "$kind" = redis ] || exec redis-sentinel "$state"

told=
trap 'told=1' TERM INT
redis-server "$state" &
server=$!
status=0
wait "$server" || status=$?
if [ -n "$told" ]; then
  hand_over || echo "It could not hand over" >&2
  kill -TERM "$server"
  status=0
  wait "$server" || status=$?
fi
exit "$status"
