# SPDX-License-Identifier: GPL-3.0-or-later
{
    "name": "Berth runtime",
    "summary": "A request whose database connection was lost is served again where that is safe",
    "description": "Loaded by every web process through server_wide_modules. There is nothing to install in a database.",
    "version": "19.0.1.0.0",
    "author": "Berth maintainers",
    "license": "GPL-3 or any later version",
    "category": "Hidden",
    "depends": ["web"],
    # Nobody shall find it among the apps: it has no models.
    "installable": False,
    "post_load": "post_load",
}
