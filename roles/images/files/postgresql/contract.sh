# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the postgresql role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 45432:45432 ] || { echo "user is $(id), expected 45432:45432" >&2; exit 1; }
for directory in /var/lib/postgresql /var/run/postgresql /etc/patroni /etc/pgbackrest /var/spool/pgbackrest; do
  [ "$(stat -c %u "$directory")" = 45432 ] || { echo "$directory does not belong to user 45432" >&2; exit 1; }
done
version=$(postgres --version)
version=${version#"postgres (PostgreSQL) "}
case $version in
  17.*) ;;
  *) echo "postgres --version says '$version', expected 17.x" >&2; exit 1 ;;
esac
echo "version=${version%% *}"
patroni=$(patroni --version)
echo "patroni=${patroni#patroni }"
pgbackrest=$(pgbackrest version)
echo "pgbackrest=${pgbackrest#pgBackRest }"
python3 -c 'import patroni.dcs.etcd3, psycopg, psycopg2'
libraries=$(pg_config --pkglibdir 2>/dev/null || echo /usr/lib/postgresql/17/lib)
for library in pgaudit pg_repack pg_stat_statements; do
  [ -e "$libraries/$library.so" ] || { echo "$libraries/$library.so is missing" >&2; exit 1; }
done
command -v pg_repack > /dev/null
[ ! -e /var/lib/postgresql/17 ] || { echo "the image holds a database cluster" >&2; exit 1; }
# A cluster can be made and answers, which needs every library.
initdb --pgdata /tmp/data --encoding UTF8 --locale C.UTF-8 --no-sync --auth trust > /tmp/initdb.log || { cat /tmp/initdb.log >&2; exit 1; }
echo "select 'standalone=' || current_setting('server_version_num')" |
  postgres --single -D /tmp/data -c shared_preload_libraries=pgaudit,pg_stat_statements postgres | grep -q standalone=17
echo "user=45432:45432"
