# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may reach a host, as data, and as an nftables table that lives beside Docker's rules. Pure functions: no Ansible import, no I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ._wiring import ETCD_PORT, PORT_OFFSETS, REDIS_PORT, SENTINEL_PORT, analyst_networks, first_port, voters

TABLE = "inet berth"
ANYWHERE = "any"
"""The word for every source. An empty list would be a rule that a mistake in an inventory opens to everybody."""

ETCD_PEER_PORT = 2380
POSTGRESQL_PORT = 5432
PATRONI_PORT = 8008
PGBACKREST_PORT = 8432
HTTP_PORT, HTTPS_PORT = 80, 443
SSH_PORT = 22

PORTLESS = {"vrrp": 112}
"""Protocols of IP that know no ports, and their numbers."""

BRIDGES = ("docker0", "br-*")
"""How Docker calls its networks on the host."""

_COMMENT_BYTES = 120  # nftables takes 128


class FirewallError(ValueError):
    """What was asked for cannot be, or must not be. The message says what to type."""


class Opening(NamedTuple):
    """A port of a host, or a protocol without ports, and who may reach it."""

    port: int
    """0 where the protocol knows none."""
    protocol: str
    sources: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    """Empty: anywhere. Of what a host may reach: whereto."""
    why: str

    def admits(self, protocol: str, port: int, address: str) -> bool:
        """Whether somebody may connect."""
        if (self.protocol, self.port) != (protocol, port):
            return False
        client = _client(address)
        return not self.sources or any(client.version == source.version and client in source for source in self.sources)


def _client(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address as sshd writes it: with a zone where it is a link's own, and IPv4 sometimes within IPv6."""
    client = ipaddress.ip_address(address.partition("%")[0])
    return getattr(client, "ipv4_mapped", None) or client


# --- what the platform needs ---------------------------------------------------------------------------------------------------------


def needed(
    tiers: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
    topology: Mapping[str, Mapping[str, Any]],
    instances: Mapping[str, Mapping[str, Mapping[str, Any]] | None],
    edge_ports: Mapping[str, Sequence[int]] | None = None,
    *,
    floating: bool = False,
    backups: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Return by host the openings that the platform needs, in the form of C(firewall_openings).

    What another host needs is published; what is published has its peers. So this reads what is published from the topology.

    Args:
        tiers: C(database), C(witness), C(app), C(cache) and C(edge) to their hosts.
        addresses: host to the address at which, and from which, the others know it.
        topology: result of C(topology) for them.
        instances: host to its C(odoo_instances): one that has hosts of its own is on those alone.
        edge_ports: host to the ports of its edge for HTTP and HTTPS, where they are not 80 and 443.
        floating: the edges share an address.
        backups: the database is backed up.
    """
    database, app, edge = (list(tiers.get(tier) or []) for tier in ("database", "app", "edge"))
    members = voters(tiers)

    def peers(host: str, *names: Iterable[str]) -> list[str]:
        """Addresses of hosts without the host itself, whose containers come over Docker's networks."""
        return list(dict.fromkeys(addresses[name] for group in names for name in group if name != host))

    found: dict[str, list[dict[str, Any]]] = {}
    for host, published in topology.items():
        openings: list[tuple[int, list[str], str]] = []
        if host in edge:
            http, https = (edge_ports or {}).get(host) or (HTTP_PORT, HTTPS_PORT)
            openings += [(int(http), [ANYWHERE], "the edge sends to HTTPS"), (int(https), [ANYWHERE], "the edge")]
        if published["odoo_publish_address"]:
            # Also of one that is stopped: nobody listens there, preflight asks for the way to it, and it can start again without another run of this.
            openings += [
                (first_port(instance) + offset, peers(host, edge), f"edges to {name}, {tier}")
                for name, instance in (instances.get(host) or {}).items()
                for tier, offset in PORT_OFFSETS.items()
            ]
        if published["redis_publish_address"]:
            several = published["redis_members"]
            openings.append((REDIS_PORT, peers(host, app, several), "Odoo and other members to Redis" if several else "Odoo to Redis"))
            if several:
                openings.append((SENTINEL_PORT, peers(host, app, several), "who asks which Redis is the primary"))
        if published["postgresql_publish_address"]:
            readers = list(dict.fromkeys(analyst_networks(instances.get(host))))
            openings += [
                (POSTGRESQL_PORT, [*peers(host, app, database), *readers], "Odoo and other members to PostgreSQL"),
                (PATRONI_PORT, peers(host, app, database), "who asks Patroni for the leader"),
            ]
            if backups:
                openings.append((PGBACKREST_PORT, peers(host, database), "who leads, to back up from a standby"))
        if published["etcd_publish_address"]:
            openings += [
                (ETCD_PORT, peers(host, members), "Patroni and members to etcd"),
                (ETCD_PEER_PORT, peers(host, members), "members of etcd among each other"),
            ]
        found[host] = [{"port": port, "sources": sources, "why": why} for port, sources, why in openings if sources]
        # VRRP has no secret that is worth the name: that nobody else can speak it is its protection.
        if floating and host in edge and (others := peers(host, edge)):
            found[host].append({"protocol": "vrrp", "sources": others, "why": "edges agree on who has the floating address"})
    return found


def reverse(
    needed_of: Mapping[str, Sequence[Mapping[str, Any]]],
    addresses: Mapping[str, str],
    floating: str = "",
    edges: Mapping[str, int] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Return by host what it has to reach on others, in the form of C(firewall_destinations): what those are open for.

    Args:
        needed_of: result of C(needed).
        addresses: host to the address at which the others know it.
        floating: the address that the edges share. One that has it not looks whether it is answered.
        edges: those, with the port at which they answer.
    """
    found: dict[str, list[dict[str, Any]]] = {host: [] for host in needed_of}
    for target, openings_of in needed_of.items():
        for entry in openings_of:
            for host in found:
                if host != target and addresses[host] in entry["sources"]:
                    rest = {key: value for key, value in entry.items() if key in {"port", "protocol", "why"}}
                    found[host].append({**rest, "to": [addresses[target]]})
    if floating:
        for host, port in (edges or {}).items():
            found[host].append({"port": port, "to": [floating], "why": "whether the floating address is answered"})
    return found


# --- what people write ---------------------------------------------------------------------------------------------------------------


def networks(where: str, texts: Iterable[Any]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Read addresses and networks.

    Raises:
        FirewallError: one of them is neither.
    """
    found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(str(text).strip())
        except ValueError:
            raise FirewallError(f"{where}: {text!r} is no address and no network. {_nearest(str(text))}") from None
        if network.prefixlen == 0:
            raise FirewallError(
                f"{where}: {text!r} is everybody. To mean that, leave the list of a management network empty, or type {ANYWHERE}"
            )
        found.append(network)
    return tuple(dict.fromkeys(found))


def _nearest(text: str) -> str:
    """Say what was probably meant: a network with bits of a host in it is the common mistake."""
    try:
        return f"Type {ipaddress.ip_network(text.strip(), strict=False)}"
    except ValueError:
        return "Type for example 10.0.0.0/24 or 203.0.113.7"


def opening(where: str, entry: Mapping[str, Any], peers: str = "sources") -> Opening:
    """Read one entry of C(firewall_openings) or C(firewall_extra_openings), or of C(firewall_outgoing) with C(to) for the peers.

    Raises:
        FirewallError: a value is not possible; names it.
    """
    if not isinstance(entry, Mapping):
        raise FirewallError(f"{where} is {entry!r}, expected keys port, protocol, {peers}, why")
    unknown = sorted(set(entry) - {"port", "protocol", peers, "why"})
    if unknown:
        raise FirewallError(f"{where}: there is no key {', '.join(unknown)}. Keys: port, protocol, {peers}, why")
    protocol = str(entry.get("protocol") or "tcp")
    if protocol not in {"tcp", "udp", *PORTLESS}:
        raise FirewallError(f"{where}.protocol is {protocol!r}, expected tcp, udp or {', '.join(PORTLESS)}")
    if protocol in PORTLESS and entry.get("port"):
        raise FirewallError(f"{where}.port is {entry['port']!r}, and {protocol} has no ports: leave it out")
    text = "0" if protocol in PORTLESS else str(entry.get("port"))
    if protocol not in PORTLESS and (not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535):
        raise FirewallError(f"{where}.port is {entry.get('port')!r}, expected a number from 1 to 65535")
    sources = entry.get(peers)
    if not isinstance(sources, (list, tuple)) or not sources:
        raise FirewallError(f"{where}.{peers} is {sources!r}, expected a list of networks. To open it to everybody type: [{ANYWHERE}]")
    everybody = ANYWHERE in sources
    if everybody and len(sources) > 1:
        raise FirewallError(f"{where}.{peers} is {sources!r}: {ANYWHERE} says everything, type [{ANYWHERE}] or the networks alone")
    return Opening(int(text), protocol, () if everybody else networks(f"{where}.{peers}", sources), str(entry.get("why") or ""))


def openings(
    platform: Sequence[Mapping[str, Any]],
    extra: Sequence[Mapping[str, Any]],
    management: Sequence[str],
    ssh_port: int = SSH_PORT,
) -> list[Opening]:
    """Return everything that is open on a host, SSH first.

    Raises:
        FirewallError: a value is not possible; names the variable.
    """
    ssh = opening("firewall_ssh_port", {"port": ssh_port, "sources": [ANYWHERE], "why": "SSH"})
    return [
        ssh._replace(sources=networks("firewall_management_networks", management)),
        *(opening(f"firewall_openings[{number}]", entry) for number, entry in enumerate(platform)),
        *(opening(f"firewall_extra_openings[{number}]", entry) for number, entry in enumerate(extra)),
    ]


def outgoing(platform: Sequence[Mapping[str, Any]], listed: Sequence[Any]) -> list[Opening] | None:
    """Return what a host and its containers may reach; None where that is everything.

    Args:
        platform: C(firewall_destinations).
        listed: C(firewall_outgoing).

    Raises:
        FirewallError: a value is not possible; names the variable.
    """
    if ANYWHERE in listed:
        if len(listed) > 1:
            raise FirewallError(f"firewall_outgoing: {ANYWHERE} says everything, type [{ANYWHERE}] or the destinations alone")
        return None
    return [
        *(opening(f"firewall_destinations[{number}]", entry, "to") for number, entry in enumerate(platform)),
        *(opening(f"firewall_outgoing[{number}]", entry, "to") for number, entry in enumerate(listed)),
    ]


def refuse_to_cut(found: Sequence[Opening], connection: str) -> None:
    """Refuse rules under which whoever is loading them could not log in again.

    Args:
        found: what will be open, SSH first.
        connection: C(SSH_CONNECTION): the client's address and port, the server's address and port. Empty text where nobody came over SSH.

    Raises:
        FirewallError: names the address and the variable.
    """
    if not connection:
        return
    client, _port, _server, port = connection.split()
    if any(entry.admits("tcp", int(port), client) for entry in found):
        return
    ssh = found[0]
    missing = [f"set firewall_ssh_port to {port}, it is {ssh.port}"] if ssh.port != int(port) else []
    if not ssh.admits("tcp", ssh.port, client):
        missing.append(f"add {client} to firewall_management_networks")
    raise FirewallError(
        f"this connection comes from {client} to port {port}, and these rules would cut it off. Nothing was changed. "
        f"To keep it, {' and '.join(missing)}"
    )


BRIDGE = re.compile(r"br-[0-9a-f]{12}")
"""How Docker names the bridge of a network. C(BRIDGES) says it as far as nftables can."""


def refuse_bridges(interfaces: Iterable[str]) -> None:
    """Refuse to take an interface of somebody else for one of Docker's, from which everything is forwarded.

    Raises:
        FirewallError: names the interfaces.
    """
    if strangers := sorted(name for name in interfaces if name.startswith("br-") and not BRIDGE.fullmatch(name)):
        raise FirewallError(
            f"this host has the interface {', '.join(strangers)}, and names that begin with br- are taken for Docker's networks, which may reach "
            "every published port. Nothing was changed. Give it another name, for example br0"
        )


def refuse_old_connection(loaded_by: str, now: str) -> None:
    """Refuse to confirm rules through a connection that was there before them: the kernel lets it go on whatever the rules are.

    Args:
        loaded_by: C(SSH_CONNECTION) of the login that loaded the rules.
        now: that of the login that confirms them.

    Raises:
        FirewallError: they are one.
    """
    if now and now == loaded_by:
        raise FirewallError(
            "this is the connection through which the rules were loaded: it proves nothing about a new one. They are taken back soon. "
            "Use meta: reset_connection before; where Ansible runs on the host itself, run it from another machine or from the console"
        )


# --- nftables ------------------------------------------------------------------------------------------------------------------------


def ruleset(found: Iterable[Opening], leaving: Iterable[Opening] | None = None) -> str:
    """Return the file for C(nft -f). It replaces the table in one transaction and touches no other.

    Both chains ask the same list. A connection's original port is the published one in front of Docker's translation, and the port itself where
    nothing is translated: a process of the host, or the kernel that refuses because the container is not there.

    Args:
        found: what is open.
        leaving: what the host and its containers may reach; None for everything.
    """
    return f"""\
# Managed by berth.odoo, role firewall. Changes here are overwritten: use firewall_extra_openings and firewall_outgoing.
# Before Docker's chains (filter - 5): what is dropped here never reaches them, what is accepted still has to pass them.
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
  chain open {{
{_lines(line for entry in found for line in _rules(entry))}  }}

  chain input {{
    type filter hook input priority filter - 5; policy drop;
    iifname "lo" accept
    ct state established,related accept
    ct state invalid drop
    icmp type echo-request limit rate 20/second burst 40 packets accept
    icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
    icmpv6 type echo-request limit rate 20/second burst 40 packets accept
    icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} accept
    icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query }} accept
    udp sport 547 udp dport 546 ip6 saddr fe80::/10 accept
    jump open
    counter drop
  }}

  chain forward {{
    type filter hook forward priority filter - 5; policy drop;
    ct state established,related accept
{_lines(f'iifname "{name}" {"accept" if leaving is None else "goto leave"}' for name in BRIDGES)}    ct status dnat jump open
    counter drop
  }}
{"" if leaving is None else _leaving(leaving)}}}
"""


def _lines(rules: Iterable[str]) -> str:
    return "".join(f"    {rule}\n" for rule in rules)


def _leaving(entries: Iterable[Opening]) -> str:
    """Return the chains for what a host and its containers may reach. What is refused is told so at once: nothing waits for a timeout.

    Names and the time are asked anywhere, and addresses are got: nothing works without.
    """
    return f"""
  chain leave {{
{_lines(f'oifname "{name}" accept' for name in BRIDGES)}    meta l4proto {{ icmp, icmpv6 }} accept
    meta l4proto {{ tcp, udp }} th dport 53 accept
    udp dport {{ 67, 123, 547 }} accept
{_lines(line for entry in entries for line in _rules(entry, "daddr"))}    counter reject with icmpx type admin-prohibited
  }}

  chain output {{
    type filter hook output priority filter - 5; policy drop;
    oifname "lo" accept
    ct state established,related accept
    goto leave
  }}
"""


def _rules(entry: Opening, peers: str = "saddr") -> list[str]:
    """Return the lines for an opening: one, or one for each family."""
    port = "ct original proto-dst" if peers == "saddr" else "th dport"
    what = f"meta l4proto {PORTLESS.get(entry.protocol, entry.protocol)}" + ("" if entry.protocol in PORTLESS else f" {port} {entry.port}")
    comment = _comment(entry.why)
    if not entry.sources:
        return [f"{what} accept{comment}"]
    # Collapsed: nftables refuses a set in which one network holds another.
    families: dict[str, Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]] = {
        "ip": ipaddress.collapse_addresses(source for source in entry.sources if isinstance(source, ipaddress.IPv4Network)),
        "ip6": ipaddress.collapse_addresses(source for source in entry.sources if isinstance(source, ipaddress.IPv6Network)),
    }
    texts = {family: sorted(map(_element, networks_of)) for family, networks_of in families.items()}
    return [f"{family} {peers} {{ {', '.join(elements)} }} {what} accept{comment}" for family, elements in texts.items() if elements]


def _element(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _comment(text: str) -> str:
    """Return a comment that can be nothing else: no quote, no line break, not too long."""
    clean = re.sub(r"[^A-Za-z0-9 ,.:;/()_+-]", "_", text)[:_COMMENT_BYTES].strip()
    return f' comment "{clean}"' if clean else ""


def revert(rules: str, trial: str) -> str:
    """Return the shell script that takes back rules on trial: those that were confirmed last come back, or none."""
    return f"rm -f {trial}; if [ -e {rules} ]; then nft -f {rules}; else {_DELETE}; fi"


_DELETE = f"nft 'add table {TABLE}; delete table {TABLE}'"


def units(rules: str, trial: str) -> dict[str, str]:
    """Return by name the units of systemd that load the rules and see to it that they stay.

    Args:
        rules: file of the confirmed rules.
        trial: file that is there while others are on trial.
    """
    # What nftables makes of the file is asked in a network of its own: two texts of one hand are compared.
    compare = (
        f"wanted=$$(unshare --net -- sh -c 'nft -f {rules} && nft -s list table {TABLE}') || exit 1; "
        f'[ "$$wanted" = "$$(nft -s list table {TABLE} 2>&1)" ] || {{ echo "<4>table {TABLE} is not what {rules} says, loading it"; '
        f"nft -f {rules}; }}"
    )
    head = "# Managed by berth.odoo, role firewall.\n"
    return {
        "berth-firewall.service": f"""{head}\
[Unit]
Description=Firewall of berth.odoo (table {TABLE})
Documentation=man:nft(8)
DefaultDependencies=no
After=local-fs.target
Wants=network-pre.target berth-firewall-watch.timer
Before=network-pre.target docker.service
ConditionPathExists={rules}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {rules}
ExecReload=/usr/sbin/nft -f {rules}
# This table alone. Not at shutdown: nothing stops it before the network is gone.
ExecStop=/usr/sbin/{_DELETE}

[Install]
WantedBy=sysinit.target
""",
        "berth-firewall-watch.service": f"""{head}\
[Unit]
Description=Put back the firewall of berth.odoo where somebody flushed or changed it
ConditionPathExists={rules}
ConditionPathExists=!{trial}

[Service]
Type=oneshot
# Not a word while everything is right.
LogLevelMax=notice
ExecStart=/bin/sh -c '{compare.replace("'", chr(92) + "'")}'
""",
        "berth-firewall-watch.timer": f"""{head}\
[Unit]
Description=Look after the firewall of berth.odoo
PartOf=berth-firewall.service

[Timer]
OnActiveSec=1s
OnUnitInactiveSec={WATCH_SECONDS}s
AccuracySec=1s
""",
    }


WATCH_SECONDS = 20
"""How long a flushed table stays away."""


# --- for people ----------------------------------------------------------------------------------------------------------------------


def table(by_host: Mapping[str, Iterable[Opening]], names: Mapping[str, str] | None = None) -> str:
    """Return a Markdown table of what is open.

    Args:
        by_host: host to its openings.
        names: address to the name of the host that has it.
    """
    rows = ["| Host | Port | Open to | For |", "|---|---|---|---|"]
    for host, found in by_host.items():
        for entry in found:
            who = ", ".join((names or {}).get(_element(source), _element(source)) for source in entry.sources) or "everybody"
            rows.append(f"| {host} | {f'{entry.port}/' if entry.port else ''}{entry.protocol} | {who} | {entry.why} |")
    return "\n".join(rows)
