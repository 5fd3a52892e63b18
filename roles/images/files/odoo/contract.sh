# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the odoo role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 48069:48069 ] || { echo "user is $(id), expected 48069:48069" >&2; exit 1; }
[ "$(stat -c %u /var/lib/odoo)" = 48069 ] || { echo "/var/lib/odoo does not belong to user 48069" >&2; exit 1; }
command -v psql > /dev/null || { echo "psql is missing: database dumps need the PostgreSQL client" >&2; exit 1; }
version=$(odoo --version)
case $version in
  "Odoo Server 19.0"*) ;;
  *) echo "odoo --version says '$version', expected Odoo Server 19.0" >&2; exit 1 ;;
esac
echo "version=${version#Odoo Server }"
echo "package=$(dpkg-query --show --showformat '${Version}' odoo-19 2>/dev/null || echo none)"
echo "user=48069:48069"
echo "wkhtmltopdf=$(wkhtmltopdf --version 2>&1 || echo none)"
