#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Does one thing to this host that a database cluster must survive. What does not end by itself is undone by a timer of systemd on the host, which
# is armed before: a controller that is lost meanwhile leaves nothing broken.
#
#   fault.sh switchover | kill_postgresql | kill_patroni | restart_primary_container
#   fault.sh stop_etcd SECONDS
#   fault.sh partition SECONDS SSH_PORT ADDRESS...
#   fault.sh heal            what the timer of a partition does
#   fault.sh etcd_leads      breaks nothing: prints true or false
set -eu

container() {
  found=$(docker ps -q --no-trunc --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$1")
  [ -n "$found" ] || { echo "no container of $1 runs on $(hostname)" >&2; exit 1; }
  echo "$found"
}

later() {
  seconds=$1
  unit=$2
  shift 2
  systemd-run --quiet --collect --unit="$unit" --on-active="${seconds}s" --timer-property=AccuracySec=100ms "$@"
}

heal() {
  # In the order of their making, each also where the one before is missing.
  for chain in PREROUTING OUTPUT; do
    while iptables -w -t raw -D "$chain" -j BERTH-DRILL 2> /dev/null; do :; done
  done
  iptables -w -t raw -F BERTH-DRILL 2> /dev/null || true
  iptables -w -t raw -X BERTH-DRILL 2> /dev/null || true
}

fault=$1
shift
case $fault in
  switchover)
    docker exec "$(container postgresql)" patronictl switchover --force
    ;;
  kill_postgresql)
    # shellcheck disable=SC2016 # the container's shell expands it
    docker exec "$(container postgresql)" sh -c 'kill -s KILL "$(head -n 1 "$(psql -h /run/postgresql -U postgres -XAtc "SHOW data_directory")/postmaster.pid")"'
    ;;
  kill_patroni)
    kill -s KILL "$(docker inspect -f '{{.State.Pid}}' "$(container postgresql)")"
    ;;
  restart_primary_container)
    docker restart --time 150 "$(container postgresql)"
    ;;
  stop_etcd)
    etcd=$(container etcd)
    later "$1" berth-drill-etcd docker start "$etcd"
    docker stop "$etcd"
    ;;
  partition)
    seconds=$1
    ssh_port=$2
    shift 2
    cp "$0" /run/berth-drill-fault.sh
    later "$seconds" berth-drill-heal sh /run/berth-drill-fault.sh heal
    iptables -w -t raw -N BERTH-DRILL
    # The way of the controller, which may lead through one of the hosts.
    iptables -w -t raw -A BERTH-DRILL -p tcp --dport "$ssh_port" -j RETURN
    iptables -w -t raw -A BERTH-DRILL -p tcp --sport "$ssh_port" -j RETURN
    for address in "$@"; do
      iptables -w -t raw -A BERTH-DRILL -s "$address" -j DROP
      iptables -w -t raw -A BERTH-DRILL -d "$address" -j DROP
    done
    # Before any translation of addresses, so that containers are cut off too. Both chains last: until then nothing has happened.
    iptables -w -t raw -I PREROUTING -j BERTH-DRILL
    iptables -w -t raw -I OUTPUT -j BERTH-DRILL
    ;;
  heal)
    heal
    ;;
  etcd_leads)
    docker exec "$(container etcd)" etcdctl endpoint status --write-out=simple | cut -d , -f 5 | tr -d ' '
    ;;
  *)
    echo "unknown fault $fault" >&2
    exit 2
    ;;
esac
