# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One instance at its limits, and what people of another one feel of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ansible_collections.berth.odoo.tests.support.lab import wait_for
from ansible_collections.berth.odoo.tests.support.tenants import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.berth.odoo.tests.support.lab import Host
    from ansible_collections.berth.odoo.tests.support.tenants import Tenant

WANTED = 1.3
# Two processors for both, PostgreSQL and the clients gave 0.9 to 1.6, and up to 3.1 without a limit. Workers that both share give a hundred. Somebody
# else's burst gives anything for some seconds, so it is measured again.
ACCEPTED = 4.0
ATTEMPTS = 5
CLIENTS = 12
# Inside of the container that it loads, so that the clients' processors are those of the noisy instance, too.
NOISE = """
import concurrent.futures, pathlib, urllib.request
def ask(_):
    while pathlib.Path("/tmp/noise").exists():
        urllib.request.urlopen("http://localhost:8069/web/login", timeout=600).read()
pathlib.Path("/tmp/noise").touch()
with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
    list(pool.map(ask, range(CLIENTS)))
"""


def asking(host: Host) -> int:
    """How many connections the web tier of acme has, or keeps waiting, from within its container."""
    lines = [line.split() for line in host.run("docker exec odoo-acme-web-1 cat /proc/net/tcp").splitlines()[1:]]
    return sum(line[3] == "01" and line[1].endswith(":1F85") for line in lines)


@contextmanager
def noise(host: Host) -> Iterator[None]:
    """Keep every worker of acme busy."""
    host.run("docker exec -i odoo-acme-web-1 sh -c 'cat > /tmp/noise.py'", stdin=NOISE.replace("CLIENTS", str(CLIENTS)))
    host.run("docker exec -d odoo-acme-web-1 python3 /tmp/noise.py")
    try:
        wait_for("noise", lambda: asking(host) > CLIENTS // 2, seconds=30)
        yield
        wait_for("noise that lasted", lambda: asking(host) > CLIENTS // 2, seconds=5)
    finally:
        host.run("docker exec odoo-acme-web-1 rm -f /tmp/noise")


def processor_time(host: Host) -> float:
    """Seconds of processor time that the web container of acme has used."""
    program = """
import json, pathlib, re
first, second = pathlib.Path("/sys/fs/cgroup/cpuacct/cpuacct.usage"), pathlib.Path("/sys/fs/cgroup/cpu.stat")
print(json.dumps(int(first.read_text()) / 1e9 if first.exists() else int(re.search(r"usage_usec (\\d+)", second.read_text())[1]) / 1e6))
"""
    return float(inside(host, "odoo-acme-web-1", program))


def p95(client: Tenant, seconds: float) -> float:
    """Milliseconds that 95 of 100 clicks do not exceed, at four clicks a second, counted from when each was due."""
    taken = []
    began = time.monotonic()
    for number in range(int(seconds * 4)):
        due = began + number / 4
        time.sleep(max(0.0, due - time.monotonic()))
        client.call("res.partner", "web_search_read", [], {"display_name": {}, "email": {}}, limit=40)
        taken.append((time.monotonic() - due) * 1000)
    return statistics.quantiles(taken, n=20)[-1]


def test_a_noisy_instance_does_not_take_the_others_time(
    host: Host, tenant: Callable[[str], Tenant], secrets: dict[str, dict[str, str]], say: Callable[[str], None]
) -> None:
    client = tenant("globex")
    client.log_in("admin", secrets["globex"]["admin_password"])
    p95(client, 3)  # warm
    ratios = []
    while len(ratios) < ATTEMPTS and min(ratios, default=ACCEPTED + 1) > ACCEPTED:
        before_it = p95(client, 8)
        with noise(host):
            began, before = time.monotonic(), processor_time(host)
            beside = p95(client, 10)
            cores = (processor_time(host) - before) / (time.monotonic() - began)
        # The machine itself may be busier at one time than at another.
        alone = max(before_it, p95(client, 8))
        ratios.append(beside / alone)
        say(f"tenant_p95_ratio\t{WANTED}\t{ratios[-1]:.2f}\t\t{'ok' if ratios[-1] <= WANTED else 'short'}")
        say(f"alone {alone:.0f} ms, beside {beside:.0f} ms; the other one used {cores:.1f} processors")
    assert min(ratios) <= ACCEPTED, f"95th percentile beside a busy instance, as a multiple of that alone: {ratios}"
