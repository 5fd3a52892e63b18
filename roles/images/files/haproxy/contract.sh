# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the haproxy role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 45000:45000 ] || { echo "user is $(id), expected 45000:45000" >&2; exit 1; }
version=$(haproxy -v | sed -n '1s/^HAProxy version \([0-9.]*\).*/\1/p')
echo "version=$version"
case $version in 3.*) ;; *) echo "HAProxy is version $version, expected 3" >&2; exit 1 ;; esac
haproxy -vv | grep -q 'Built with OpenSSL' || { echo "HAProxy was built without OpenSSL" >&2; exit 1; }
command -v bash > /dev/null || { echo "bash is missing: the health check needs it" >&2; exit 1; }
echo "user=45000:45000"
