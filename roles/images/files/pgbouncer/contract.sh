# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the pgbouncer role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 46432:46432 ] || { echo "user is $(id), expected 46432:46432" >&2; exit 1; }
version=$(pgbouncer --version | sed -n 's/^PgBouncer //p')
echo "version=$version"
psql --version > /dev/null
pg_isready --version > /dev/null
# Bounded prepared statements and peer-less TLS both need 1.21 or later.
case $version in
  1.2[1-9]* | 1.[3-9][0-9]*) ;;
  *) echo "PgBouncer is $version, expected 1.21 or later" >&2; exit 1 ;;
esac
echo "user=46432:46432"
