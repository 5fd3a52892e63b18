# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive of packages on a host's own disk, so that what waits there depends on nothing outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.berth.odoo.tests.support.lab import Host

ARCHIVE = "/srv/berth-archive"
SECURITY, PLAIN, HELD = "berth-security", "berth-plain", "berth-held"
SOURCES = {SECURITY: "security", PLAIN: "main", HELD: "security"}

# Arguments: package, version, part of the archive, label, suite. The newer version asks for a reboot, as a kernel or a library does.
_BUILD = r"""
set -e
name=$1 version=$2 part={archive}/$3 label=$4 suite=$5
mkdir -p "$part" && work=$(mktemp -d) && mkdir "$work/DEBIAN"
cat > "$work/DEBIAN/control" <<END
Package: $name
Version: $version
Architecture: all
Maintainer: nobody <nobody@example.com>
Description: harmless
END
if [ "$version" != 1.0 ] && [ "$name" = {security} ]; then
  printf '#!/bin/sh\ntouch /run/reboot-required\necho %s >> /run/reboot-required.pkgs\n' "$name" > "$work/DEBIAN/postinst"
  chmod 0755 "$work/DEBIAN/postinst"
fi
dpkg-deb --root-owner-group --build "$work" "$part/${{name}}_$version.deb" > /dev/null
rm -r "$work" && cd "$part"
for deb in *.deb; do
  dpkg-deb --field "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done > Packages
printf 'Origin: Debian\nLabel: %s\nSuite: %s\nVersion: 13\nDate: %s\nSHA256:\n %s %s Packages\n' "$label" "$suite" "$(date -Ru)" \
  "$(sha256sum Packages | cut -d ' ' -f 1)" "$(stat -c %s Packages)" > Release
"""


def offer(host: Host, name: str, version: str) -> None:
    """Put a version of a package into the host's archive."""
    part = SOURCES[name]
    label, suite = ("Debian-Security", "stable-security") if part == "security" else ("Debian", "stable")
    script = _BUILD.format(archive=ARCHIVE, security=SECURITY)
    host.run(f"bash -s -- {name} {version} {part} {label} {suite}", stdin=script)


def prepare(host: Host) -> None:
    """Let the host know its own archive alone, and install the old version of each package, one of them on hold."""
    for name in SOURCES:
        offer(host, name, "1.0")
    sources = "".join(f"deb [trusted=yes] file:{ARCHIVE}/{part} ./\n" for part in sorted(set(SOURCES.values())))
    host.run(
        "set -e; cd /etc/apt; test -e berth-kept || { mkdir berth-kept; mv sources.list* berth-kept/; }; cat > sources.list; "
        f"apt-get update -qq; apt-get install -qq -y --allow-downgrades {' '.join(f'{name}=1.0' for name in SOURCES)} > /dev/null; "
        f"apt-mark hold {HELD} > /dev/null",
        stdin=sources,
    )


def restore(host: Host) -> None:
    """Give the host its sources back, and take the packages away."""
    host.run(
        f"set -e; apt-mark unhold {' '.join(SOURCES)} > /dev/null; apt-get purge -qq -y {' '.join(SOURCES)} > /dev/null; cd /etc/apt; "
        f"rm -f sources.list; mv berth-kept/* .; rmdir berth-kept; rm -rf {ARCHIVE} /var/lib/berth/patch.json; apt-get update -qq"
    )


def version(host: Host, name: str) -> str:
    """The installed version of a package."""
    return host.run(f"dpkg-query --show --showformat '${{Version}}' {name}")
