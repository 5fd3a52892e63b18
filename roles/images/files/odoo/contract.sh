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
python3 - <<'PYTHON'
import importlib
import pathlib

for name in ("odoo", "odoo.http", "psycopg2", "gevent", "ldap", "redis", "lxml", "PIL", "reportlab", "phonenumbers"):
    importlib.import_module(name)
import odoo.addons

paths = [pathlib.Path(path) for path in odoo.addons.__path__]
count = sum(1 for path in paths for _ in path.glob("*/__manifest__.py"))
for module in ("base", "web", "stock", "sale_management", "account"):
    if not any((path / module / "__manifest__.py").exists() for path in paths):
        raise SystemExit(f"module {module} is not in {paths}")
from odoo.addons.berth_runtime import logs, repeat, sessions

if problems := [*logs.unexpected(), *repeat.unexpected(), *sessions.unexpected()]:
    raise SystemExit(f"the add-on berth_runtime does not fit this Odoo: {'; '.join(problems)}")
print("addons_path=" + ",".join(map(str, paths)))
print(f"modules={count}")
PYTHON
echo "wkhtmltopdf=$(wkhtmltopdf --version 2>&1 || echo none)"
