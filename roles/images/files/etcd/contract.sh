# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the etcd role relies on. Runs in the image as its user; every failing line ends it.
set -eu
[ "$(id -u):$(id -g)" = 42379:42379 ] || { echo "user is $(id), expected 42379:42379" >&2; exit 1; }
[ "$(stat -c %u /var/lib/etcd)" = 42379 ] || { echo "/var/lib/etcd does not belong to user 42379" >&2; exit 1; }
version=$(etcd --version | sed -n 's/^etcd Version: //p')
echo "version=$version"
[ "$(etcdctl version | sed -n 's/^etcdctl version: //p')" = "$version" ] || { echo "etcdctl is not of version $version" >&2; exit 1; }
etcdutl version > /dev/null
echo "user=42379:42379"
