# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the redis role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 46379:46379 ] || { echo "user is $(id), expected 46379:46379" >&2; exit 1; }
[ "$(stat -c %u /var/lib/redis)" = 46379 ] || { echo "/var/lib/redis does not belong to user 46379" >&2; exit 1; }
version=$(redis-server --version | sed -n 's/.* v=\([0-9.]*\) .*/\1/p')
case $version in
  8.*) ;;
  *) echo "redis-server is '$version', expected 8.x" >&2; exit 1 ;;
esac
echo "version=$version"
command -v redis-sentinel > /dev/null
# It starts, takes a value and gives it back.
redis-server --port 0 --unixsocket /tmp/redis.sock --dir /tmp --save '' --daemonize yes > /dev/null
attempts=0
until [ "$(redis-cli -s /tmp/redis.sock ping 2>/dev/null)" = PONG ]; do
  attempts=$((attempts + 1))
  [ "$attempts" -lt 100 ] || { echo "redis-server did not answer within 10 s" >&2; exit 1; }
  sleep 0.1
done
redis-cli -s /tmp/redis.sock set key value > /dev/null
[ "$(redis-cli -s /tmp/redis.sock get key)" = value ] || { echo "redis-server lost a value" >&2; exit 1; }
echo "user=46379:46379"
