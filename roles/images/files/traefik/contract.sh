# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the traefik role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 48443:48443 ] || { echo "user is $(id), expected 48443:48443" >&2; exit 1; }
[ "$(stat -c %u /var/lib/traefik)" = 48443 ] || { echo "/var/lib/traefik does not belong to user 48443" >&2; exit 1; }
version=$(traefik version | sed -n 's/^Version: *//p')
case $version in
  3.*) ;;
  *) echo "traefik is '$version', expected 3.x" >&2; exit 1 ;;
esac
echo "version=$version"
[ -s /etc/ssl/certs/ca-certificates.crt ] || { echo "the public certificate authorities are missing" >&2; exit 1; }
echo "user=48443:48443"
