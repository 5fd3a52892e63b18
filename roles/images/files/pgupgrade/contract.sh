# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the rehearsal of an upgrade relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 45432:45432 ] || { echo "user is $(id), expected 45432:45432" >&2; exit 1; }
for major in 17 18; do
  version=$("/usr/lib/postgresql/$major/bin/postgres" --version)
  case $version in
    "postgres (PostgreSQL) $major."*) ;;
    *) echo "postgres --version of $major says '$version'" >&2; exit 1 ;;
  esac
  for library in pgaudit pg_repack pg_stat_statements pg_trgm unaccent amcheck; do
    [ -e "/usr/lib/postgresql/$major/lib/$library.so" ] || { echo "$library.so of $major is missing" >&2; exit 1; }
  done
done
version=${version#"postgres (PostgreSQL) "}
echo "version=${version%% *}"
for program in pg_upgrade pg_amcheck vacuumdb initdb; do
  "/usr/lib/postgresql/18/bin/$program" --version > /dev/null
done
python3 -c 'import json, subprocess'
echo "user=45432:45432"
