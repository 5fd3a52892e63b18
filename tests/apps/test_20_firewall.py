# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall: what is open, seen from everywhere, is what docs/network.md says, whatever happens to Docker, to the rules and to the host."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.berth.odoo.tests.support.lab import REPOSITORY, docker, wait_for
from ansible_collections.berth.odoo.tests.support.load import Clerks
from ansible_collections.berth.odoo.tests.support.ports import SCANNER, Stranger, from_here, from_host, inside, listening, stranger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host, Lab
    from ansible_collections.berth.odoo.tests.support.odoo import Odoo
    from ansible_collections.berth.odoo.tests.support.playbook import Player

PLAYBOOK = "playbooks/firewall.yml"
ROW = re.compile(r"^\| (\w+) \| (\d+)/tcp \| ([^|]+) \| ", re.MULTILINE)
UNPUBLISHED = 8071
"""A port of the application hosts at which nothing is ever published."""


@pytest.fixture(scope="module")
def neighbour(lab: Lab) -> Iterator[Stranger]:
    """Somebody on the hosts' network who is none of them."""
    with stranger(lab.hosts) as machine:
        yield machine


@pytest.fixture(scope="module")
def controller(host: Host) -> str:
    """The address of this machine as the hosts see it."""
    return host.run("ss -Htn state established sport = :22").split()[3].rpartition(":")[0].strip("[]").removeprefix("::ffff:")


@pytest.fixture(scope="module")
def settings(controller: str) -> dict[str, Any]:
    """What an operator sets who lets nothing out that is not listed, and lists nothing: the platform alone has to work."""
    return {"firewall_management_networks": [controller], "firewall_outgoing": []}


def documented() -> dict[tuple[str, int], list[str]]:
    """Host and port to whom docs/network.md says they are open."""
    page = (REPOSITORY / "docs/network.md").read_text(encoding="utf-8")
    section = page.partition("<!-- open two_apps -->")[2].partition("<!-- /open -->")[0]
    found = {(host, int(port)): [name.strip(" `") for name in names.split(",")] for host, port, names in ROW.findall(section)}
    assert len(found) > 10, section
    return found


def reached(lab: Lab, neighbour: Stranger) -> tuple[dict[tuple[str, str, int], str], dict[tuple[str, str, int], str]]:
    """Scan everything from everywhere, and return from whom, whereto, at which port: what is wanted, and what is."""
    table = documented()
    listened = {name: listening(host) for name, host in lab.hosts.items()}
    ports = {name: sorted(listened[name] | {port for _host, port in table} | {UNPUBLISHED}) for name in lab.hosts}
    names = {host.address: name for name, host in lab.hosts.items()}

    def scan(zone: str) -> dict[tuple[str, str, int], str]:
        targets = [(host.address, port) for name, host in lab.hosts.items() if name != zone for port in ports[name]]
        match zone:
            case "controller":
                answers = from_here(targets)
            case "stranger":
                answers = neighbour.scan(targets)
            case _:
                answers = from_host(lab.hosts[zone], targets)
        return {(zone, names[address], port): answer for (address, port), answer in answers.items()}

    with ThreadPoolExecutor() as pool:
        found = {key: answer for part in pool.map(scan, ["controller", "stranger", *lab.hosts]) for key, answer in part.items()}

    def wanted(zone: str, name: str, port: int) -> str:
        to = table.get((name, port), [])
        # The hosts themselves reach what the platform needs, and nothing else: firewall_outgoing is an empty list.
        if not ({zone if zone in lab.hosts else "everybody"} & set(to) or (zone == "controller" and "firewall_management_networks" in to)):
            return "dropped"
        return "open" if port in listened[name] else "refused"

    return {key: wanted(*key) for key in found}, found


def expect_the_table(lab: Lab, neighbour: Stranger, say: Callable[[str], None]) -> None:
    """Assert that what is open is what the table says."""
    wanted, found = reached(lab, neighbour)
    wrong = [f"{key}: wanted {wanted[key]}, got {found[key]}" for key in wanted if wanted[key] != found[key]]
    say(
        f"scan: ways that differ from the table, wanted 0, got {len(wrong)} of {len(wanted)}, {sum(answer == 'open' for answer in found.values())} open"
    )
    assert wrong == []


def expect_closed_inside(lab: Lab, neighbour: Stranger) -> None:
    """Assert that no container is reached past its host."""
    for host in lab.hosts.values():
        answers = neighbour.scan_by(host, inside(host))
        assert answers and set(answers.values()) == {"dropped"}, f"{host.name}: {answers}"


def live(host: Host) -> bool:
    """Whether the table is there."""
    return host.succeeds("nft list table inet berth > /dev/null 2>&1")


def test_without_it_a_neighbour_reaches_what_nobody_published(lab: Lab, neighbour: Stranger, say: Callable[[str], None]) -> None:
    for host in lab.hosts.values():
        host.run("if systemctl is-active --quiet berth-firewall.service; then systemctl stop berth-firewall.service; fi")
        assert not live(host)
        answers = neighbour.scan_by(host, inside(host))
        say(f"{host.name}: ports inside that a neighbour reaches, {list(answers.values()).count('open')} of {len(answers)}")
        assert "open" in answers.values(), f"{host.name}: {answers}: nothing to close, the tests prove nothing"


def test_rules_that_would_cut_off_the_controller_are_refused(play: Player, lab: Lab, controller: str) -> None:
    run = play(PLAYBOOK, variables={"firewall_management_networks": ["192.0.2.0/24"]})
    run.expect_refusal(f"comes from {controller} to port 22", "Nothing was changed", f"add {controller} to firewall_management_networks")
    assert not live(lab.hosts["front"])


def test_nobody_who_works_notices(play: Player, lab: Lab, admin: Odoo, settings: dict[str, Any], say: Callable[[str], None]) -> None:
    clerks = Clerks(admin, 4)
    live_connection = admin.websocket()
    with clerks.working():
        wait_for("requests", lambda: len(clerks.requests) > 10, seconds=30)
        run = play(PLAYBOOK, variables=settings).expect_success()
        before = len(clerks.requests)
        wait_for("requests afterwards", lambda: len(clerks.requests) > before + 20, seconds=30)
    say(f"firewall: failed requests, wanted 0, got {len(clerks.failed)} of {len(clerks.requests)}")
    assert clerks.failed == []
    assert set(run.changed) >= {"Converge the firewall"}
    live_connection.ping()
    live_connection.close()
    for host in lab.hosts.values():
        assert host.run("systemctl is-enabled berth-firewall.service nftables.service || true").split() == ["enabled", "masked"]


def test_what_is_open_is_what_the_table_says(lab: Lab, neighbour: Stranger, say: Callable[[str], None]) -> None:
    expect_the_table(lab, neighbour, say)
    expect_closed_inside(lab, neighbour)


def test_what_leaves_is_listed(play: Player, lab: Lab, neighbour: Stranger, settings: dict[str, Any]) -> None:
    """Nothing listens there: what gets through is refused by the neighbour."""
    host = lab.hosts["app1"]
    targets = [(neighbour.address, port) for port in (UNPUBLISHED, UNPUBLISHED + 1)]

    def reach() -> list[list[str]]:
        """From the host, and from a container on it."""
        container = host.run(f"docker exec -i odoo-main-web-1 python3 -c '{SCANNER}'", stdin=json.dumps(targets))
        return [list(from_host(host, targets).values()), json.loads(container)]

    assert reach() == [["dropped", "dropped"]] * 2
    listed = {"firewall_outgoing": [{"port": UNPUBLISHED, "to": [neighbour.address], "why": "mail"}]}
    play(PLAYBOOK, "--limit", "app1", variables={**settings, **listed}).expect_success()
    assert reach() == [["refused", "dropped"]] * 2
    wrong = {"firewall_outgoing": [{"port": 25, "to": ["mail.example.com"]}]}
    play(PLAYBOOK, "--limit", "app1", variables={**settings, **wrong}).expect_refusal(
        "firewall_outgoing[0].to: 'mail.example.com' is no address and no network"
    )
    play(PLAYBOOK, "--limit", "app1", variables=settings).expect_success()


def test_new_rules_are_taken_back_where_nobody_logs_in_anew(play: Player, lab: Lab, settings: dict[str, Any]) -> None:
    """The controller dies between loading and confirming."""
    host = lab.hosts["front"]
    before = host.run("nft -s list table inet berth")
    opened = {"firewall_extra_openings": [{"port": UNPUBLISHED, "sources": ["any"]}], "firewall_confirm_seconds": 30}
    target = [(host.address, UNPUBLISHED)]
    play(
        PLAYBOOK,
        "--limit",
        "front",
        variables={**settings, **opened},
        kill_at="confirm | Keep the rules under which this connection was made",
    )
    # On trial it is open; nothing listens there.
    assert set(from_here(target).values()) == {"refused"}
    wait_for("the old rules", lambda: set(from_here(target).values()) == {"dropped"}, seconds=60)
    assert host.run("nft -s list table inet berth") == before


def test_whatever_happens_to_docker_rules_and_hosts(
    play: Player, lab: Lab, neighbour: Stranger, settings: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Docker restarts and a rule is added on the first, everything is flushed on the second, the third loses its power."""
    front, flushed, rebooted = (lab.hosts[name] for name in ("front", "app1", "app2"))
    docker("restart", "--time", "0", rebooted.variables["lab_container"])
    front.run("systemctl restart docker.service", timeout=120)
    assert live(front)
    # Without the timer, to see what a run says.
    flushed.run("systemctl stop berth-firewall-watch.timer && nft flush ruleset")
    run = play(PLAYBOOK, "--check", "--limit", "app1", variables=settings).expect_success()
    assert [task.host for task in run.tasks if task.changed] == ["app1"]
    assert not live(flushed)
    flushed.run("systemctl start berth-firewall-watch.timer")
    front.run("nft add rule inet berth open tcp dport 1-65535 accept")
    wait_for("the table", lambda: live(flushed), seconds=30)
    # A flush took Docker's rules, too.
    flushed.run("systemctl restart docker.service", timeout=120)
    wait_for("SSH", lambda: rebooted.succeeds("systemctl is-active docker"), seconds=60, interval=2)
    question = "systemctl show --property=ActiveEnterTimestampMonotonic --value berth-firewall.service network-pre.target docker.service"
    order = [int(number) for number in rebooted.run(question).split()]
    assert len(order) == 3 and order[0] > 0 and order == sorted(order), order
    wait_for("the table without that rule", lambda: "1-65535" not in front.run("nft list table inet berth"), seconds=40)
    for host in lab.hosts.values():
        host.wait_until_healthy(seconds=120)
    expect_the_table(lab, neighbour, say)
    expect_closed_inside(lab, neighbour)
    assert play(PLAYBOOK, variables=settings).expect_success().changed == []


def test_the_site_serves_and_knows_its_clients(host: Host, url: str, admin: Odoo, neighbour: Stranger) -> None:
    assert admin.call("res.users", "search_count", []) > 0
    neighbour.run("curl", "--insecure", "--silent", "--fail", "--output", "/dev/null", f"{url}/web/health")
    asked = f'docker logs --since 60s {host.container("traefik/traefik").id} 2>&1 | grep -c \'"ClientHost":"{neighbour.address}"\' || true'
    wait_for("a line of the neighbour in the access log", lambda: int(host.run(asked)) == 1, seconds=10)
