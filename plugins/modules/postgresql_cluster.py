#!/usr/bin/python
# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster
short_description: Hand over, restart, copy anew, remove or pause members of a PostgreSQL cluster
version_added: 0.1.0
description:
  - Does one thing to the cluster from any of its hosts, after checking that it can work and loses nothing, and waits until the cluster
    is as it should be again.
  - Refuses with a sentence that says what to type instead. Nothing has been changed then.
  - On one host of the cluster only; C(run_once) is enough.
author: [berth.odoo contributors (@berth-odoo)]
extends_documentation_fragment: [berth.odoo.patroni]
attributes:
  check_mode:
    description: Refuses what would be refused, and predicts the rest.
    support: full
  diff_mode:
    description: RV(cluster) has a table of the cluster afterwards.
    support: none
options:
  state:
    description:
      - V(switchover) hands the leading role over. Users wait for a second or two. Nothing happens when O(candidate) leads already.
        Refused unless a standby can take over without loss, while the cluster is paused, and while another switchover is scheduled.
        Waits until the new leader accepts writes and the old one follows it.
      - V(failover) promotes O(candidate) where nobody leads and no standby takes over by itself, with O(force). What the last leader
        acknowledged and O(candidate) does not have is lost. Refused when another member that answers has more.
      - V(restarted) restarts the PostgreSQL of O(member), and waits until it runs and follows the leader.
      - V(reinitialized) deletes the data of the replica O(member) and copies it from another member, with O(confirm). When it is being
        copied already, waits for that. Always a change otherwise.
      - V(removed) forgets the member O(member), which has been stopped for good, with O(confirm). It waits until Patroni no longer has it, and
        drops its replication slots, which would otherwise keep WAL for C(member_slots_ttl). Runs on the host of the leader. Refused for the
        leader, and when nobody who stays could take over without loss. In check mode it asks whether a member may be stopped.
      - V(vacated) is for the moment before O(member) or its machine is stopped. When it leads, hands the leading role over as V(switchover) does.
        Refused when no standby would be left without it. Nothing happens when it is the only member, or where its Patroni does not
        run, with a warning.
      - V(back) is for the moment after. Waits until O(member) leads, or follows the leader and confirms commits again. Never a change.
      - V(paused) stops Patroni from promoting anybody, for maintenance, and V(resumed) lets it. Both wait until every member knows.
    type: str
    choices: [switchover, failover, restarted, reinitialized, removed, vacated, back, paused, resumed]
    required: true
  candidate:
    description: >-
      The member that shall lead.
      Without it a switchover takes the one with least to repeat, by Patroni's C(failover_priority) first; where commits wait for a quorum, the quicker of
      those that are as good.
    type: str
  member:
    description: >-
      The member to restart, to copy anew, to remove, or that goes away and comes back. The default is the one on this host, except to copy it anew and
      to remove it.
    type: str
  force:
    description: Accept with O(state=failover) that acknowledged data can be lost.
    type: bool
    default: false
  confirm:
    description: The name of the member whose data O(state=reinitialized) deletes, or that O(state=removed) forgets, once more.
    type: str
  staying:
    description:
      - With O(state=removed), the members that the cluster should have afterwards. Patroni forgets one that is stopped, so that it cannot
        say by itself that O(member) is the last one that could take over.
    type: list
    elements: str
    default: []
  allow_leader:
    description: Restart O(member) also when it leads. What users are doing at that moment can fail, and everything else waits until it is back.
    type: bool
    default: false
  only_pending:
    description: Restart O(member) only when parameters wait for a restart.
    type: bool
    default: false
  running_since:
    description:
      - Restart O(member) only when its PostgreSQL has been running since this time or longer, ISO 8601 with offset. With the latest
        C(started_at) of all members before the first restart, a series of restarts that was interrupted can be continued.
      - "Example: V(2026-11-24 22:00:00.123456+00:00)."
    type: str
  timeout:
    description: Seconds to wait for the cluster to be as it should be. A copy of the data may need hours.
    type: int
    default: 180
seealso:
  - module: berth.odoo.postgresql_cluster_info
"""

EXAMPLES = r"""
- name: Hand the leading role to db2
  berth.odoo.postgresql_cluster:
    state: switchover
    candidate: db2
  run_once: true

- name: Restart this host's member when parameters wait for it
  berth.odoo.postgresql_cluster:
    state: restarted
    only_pending: true

- name: Let others lead before this host is rebooted
  berth.odoo.postgresql_cluster:
    state: vacated
"""

RETURN = r"""
from:
  description: The member that led before; V(null) when nobody did.
  returned: with O(state=switchover) and O(state=failover), with O(state=vacated) where it handed over
  type: str
to:
  description: The member that leads. In check mode one that would.
  returned: with O(state=switchover) and O(state=failover), with O(state=vacated) where it handed over
  type: str
gap_seconds:
  description:
    - Seconds from the last time the old leader said that it accepts writes to the first time the new one did, asked about ten times a
      second from this host.
  returned: after a switchover
  type: float
  sample: 1.42
promotion:
  description: The promotion as Patroni's history has it, with the time of the new leader's clock.
  returned: after a switchover or failover
  type: dict
  sample:
    timeline: 4
    promoted_at: "2026-11-24T22:00:01.345678+00:00"
    leader: db2
    reason: no recovery target specified
member:
  description: The member that was restarted, copied anew or removed, that went away or is back.
  returned: with O(state=restarted), O(state=reinitialized), O(state=removed), O(state=vacated) and O(state=back)
  type: str
needed:
  description: Whether the member had to be restarted. With C(check_mode) and C(changed_when) this only asks.
  returned: with O(state=restarted)
  type: bool
cluster:
  description: The cluster afterwards, in check mode before, as M(berth.odoo.postgresql_cluster_info) returns it.
  returned: unless O(state=vacated) found no Patroni
  type: dict
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker_api import DockerClient, DockerError, DockerUnavailable
from ..module_utils._patroni_api import (
    PATRONI_OPTIONS,
    QUICK,
    PatroniApi,
    PatroniError,
    apis,
    container_hosts,
    own_api,
    patronictl,
    read_cluster,
)
from ..module_utils._patroni_cluster import (
    Refused,
    check_reinitialize,
    check_remove,
    failover_target,
    following,
    must_hand_over,
    need_dcs,
    not_back,
    promotion,
    restart_needed,
    slot_name,
    switchover_takers,
    unsettled,
)
from ..module_utils._psql import PsqlError, find_container, psql

INTERVAL = 0.5
GAP_INTERVAL = 0.05
"""Seconds between two questions. A question costs some hundredths itself."""
Cluster = dict[str, Any]


class Session:
    """A cluster and the way to it from one of its hosts."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Find the container and read the cluster. Raises PatroniError, PsqlError, DockerError, DockerUnavailable."""
        self.options = options
        self.timeout: int = options["timeout"]
        # patronictl is silent while PostgreSQL starts.
        self.client = DockerClient(timeout=self.timeout + 60)
        self.container = find_container(self.client, options["project"], options["service"], optional=False)
        self.own = own_api(self.container, options["tls_dir"])
        self.hosts = container_hosts(self.client, self.container)
        self.before = self.read()

    def read(self) -> Cluster:
        """Return the description of the cluster now."""
        return read_cluster(self.own, self.options["tls_dir"], self.hosts)

    def command(self, verb: str, *arguments: str) -> str:
        """Give a command through patronictl."""
        return patronictl(self.client, self.container, verb, *arguments)

    def wait(self, missing: Callable[[Cluster], list[str]]) -> Cluster:
        """Return the description of the cluster as soon as nothing is missing.

        Raises:
            PatroniError: Something still was when time was up.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                cluster = self.read()
                left = missing(cluster)
            except PatroniError as error:
                left = [str(error)]
            if not left:
                return cluster
            if time.monotonic() > deadline:
                raise PatroniError(
                    f"the command was given, and after {self.timeout} s (timeout) {'; '.join(left)}. Look at it with: "
                    f"docker exec {self.options['project']}-{self.options['service']}-1 patronictl list"
                )
            time.sleep(INTERVAL)

    def has_slot(self, member: str) -> bool:
        """Return whether the PostgreSQL of this host keeps WAL for a member."""
        [slots] = psql(self.client, self.container, "SELECT coalesce(json_agg(slot_name), '[]') FROM pg_replication_slots;")
        return slot_name(member) in slots

    def api(self, member: str) -> PatroniApi:
        """Return the REST API of a member."""
        return apis(self.own, self.before["member"], self.own.get("/cluster"), self.options["tls_dir"], self.hosts)[member]


def says_writable(api: PatroniApi) -> bool:
    """Return whether a member says that it accepts writes. One that does not answer is none that does."""
    try:
        status = api.get("/patroni", timeout=QUICK)
    except PatroniError:
        return False
    return (status["role"], status["state"]) == ("primary", "running")


def hand_over(session: Session, old: str, takers: list[str]) -> tuple[str, float]:
    """Switch over, and return who leads and the seconds during which no leader accepted writes.

    All are asked by one clock, this host's. Patroni's history has the moment of the promotion only, by another one.
    """
    leaving, coming = session.api(old), {name: session.api(name) for name in takers}
    deadline = time.monotonic() + session.timeout
    name = session.before["cluster_name"]
    candidate = ["--candidate", *takers] if len(takers) == 1 else []
    with ThreadPoolExecutor(max_workers=1) as pool:
        last = time.monotonic()
        command = pool.submit(session.command, "switchover", "--force", "--leader", old, *candidate, name)
        while not (new := next((taker for taker, api in coming.items() if says_writable(api)), "")):
            ended = command.done()
            if says_writable(leaving):
                last = time.monotonic()
                if ended:  # Patroni gave up and the old leader goes on, or the command failed and raises here
                    raise PatroniError(f"{old} still leads. patronictl said: {command.result().strip()}")
            if time.monotonic() > deadline:
                raise PatroniError(f"{' or '.join(takers)} does not accept writes {session.timeout} s (timeout) after the command")
            time.sleep(GAP_INTERVAL)
        return new, round(time.monotonic() - last, 2)


def led_by(session: Session, member: str, also: str | None) -> tuple[Cluster, dict[str, Any] | None]:
    """Wait until a member leads and everybody follows, and return the cluster and the promotion."""
    before = session.before
    followers = following(before, *([also] if also else []))
    # The last timeline that a leader wrote, also when nobody led.
    timeline = max((member["timeline"] or 0 for member in before["members"]), default=0)
    found: dict[str, Any] | None = None

    def missing(cluster: Cluster) -> list[str]:
        nonlocal found
        if cluster["leader"] != member:
            return [f"{cluster['leader'] or 'nobody'} leads instead of {member}"]
        found = promotion(session.own.get("/history"), timeline)
        return unsettled(cluster, followers) or ([] if found else ["Patroni's history does not have the promotion"])

    return session.wait(missing), found


def switchover(session: Session, check_mode: bool) -> dict[str, Any]:
    """Hand the leading role over."""
    old = session.before["leader"]
    takers = switchover_takers(session.before, session.options["candidate"])
    result = {"changed": takers != [old], "from": old, "to": takers[0]}
    if result["changed"] and not check_mode:
        result["to"], result["gap_seconds"] = hand_over(session, old, takers)
        result["cluster"], result["promotion"] = led_by(session, result["to"], old)
    return result


def failover(session: Session, check_mode: bool) -> dict[str, Any]:
    """Promote a member where nobody leads."""
    old = session.before["leader"]
    new = failover_target(session.before, session.options["candidate"], force=session.options["force"])
    result = {"changed": new != old, "from": old, "to": new}
    if result["changed"] and not check_mode:
        session.command("failover", "--force", "--candidate", new, session.before["cluster_name"])
        result["cluster"], result["promotion"] = led_by(session, new, None)
    return result


def started_anew(session: Session, member: str) -> Cluster:
    """Wait until the PostgreSQL of a member is another process than before, and everybody follows."""
    [before] = [one["started_at"] for one in session.before["members"] if one["name"] == member]
    followers = following(session.before, member)

    def missing(cluster: Cluster) -> list[str]:
        [now] = [one for one in cluster["members"] if one["name"] == member] or [None]
        if now is None or now["started_at"] in (None, before):
            return [f"the PostgreSQL of {member} has not started again: it is {now['state'] if now else 'not there'}"]
        return unsettled(cluster, followers)

    return session.wait(missing)


def restarted(session: Session, check_mode: bool) -> dict[str, Any]:
    """Restart a member."""
    options = session.options
    member = options["member"] or session.before["member"]
    needed = restart_needed(
        session.before,
        member,
        allow_leader=options["allow_leader"],
        only_pending=options["only_pending"],
        running_since=options["running_since"],
    )
    result = {"changed": needed, "needed": needed, "member": member}
    if needed and not check_mode:
        session.command("restart", "--force", session.before["cluster_name"], member)
        result["cluster"] = started_anew(session, member)
    return result


def reinitialized(session: Session, check_mode: bool) -> dict[str, Any]:
    """Copy a replica anew, or wait for the copy that is under way."""
    member = session.options["member"]
    told = check_reinitialize(session.before, member, session.options["confirm"])
    result = {"changed": told, "member": member}
    if not check_mode:
        if told:
            session.command("reinit", "--force", session.before["cluster_name"], member)
        result["cluster"] = started_anew(session, member)
    return result


def removed(session: Session, check_mode: bool) -> dict[str, Any]:
    """Forget a member that has been stopped."""
    member, name = session.options["member"], session.before["cluster_name"]
    there = check_remove(session.before, member, session.options["confirm"], session.options["staying"])
    if session.before["leader"] != session.before["member"]:
        raise Refused(f"this is the host of {session.before['member']}, and {session.before['leader']} leads {name}: run it there")
    result: dict[str, Any] = {"changed": there or session.has_slot(member), "member": member}
    if result["changed"] and not check_mode:

        def missing(cluster: Cluster) -> list[str]:
            listed = any(one["name"] == member for one in cluster["members"])
            return [f"{member} is still a member: stop its container postgresql-postgresql-1 for good"] if listed else []

        result["cluster"] = session.wait(missing)
        if session.has_slot(member):
            drop_slot(session, member)
    return result


def drop_slot(session: Session, member: str) -> None:
    """Let Patroni drop the slots of a member that is gone, on every member, and not only after ``member_slots_ttl``.

    It would make a slot anew that somebody else drops. Interrupted in between, the next patroni_config sets the time again.
    """
    name, kept = session.before["cluster_name"], session.own.get("/config").get("member_slots_ttl")
    session.command("edit-config", "--quiet", "--force", "--set", "member_slots_ttl=0", name)
    try:
        session.wait(lambda _cluster: [f"the replication slot of {member} is still there"] if session.has_slot(member) else [])
    finally:
        session.command("edit-config", "--quiet", "--force", "--set", f"member_slots_ttl={'null' if kept is None else kept}", name)


def vacated(session: Session, check_mode: bool) -> dict[str, Any]:
    """Hand the leading role over when a member that is about to go away has it."""
    member = session.options["member"] or session.before["member"]
    handed = switchover(session, check_mode) if must_hand_over(session.before, member) else {}
    return {"changed": False, "member": member, **handed}


def back(session: Session, check_mode: bool) -> dict[str, Any]:
    """Wait for a member that was away."""
    member = session.options["member"] or session.before["member"]
    result: dict[str, Any] = {"changed": False, "member": member}
    if not check_mode:
        result["cluster"] = session.wait(lambda cluster: not_back(cluster, member))
    return result


def pause(session: Session, check_mode: bool) -> dict[str, Any]:
    """Pause Patroni, or let it go on."""
    wanted = session.options["state"] == "paused"
    result: dict[str, Any] = {"changed": session.before["paused"] != wanted}
    need_dcs(session.before)
    if result["changed"] and not check_mode:
        session.command("pause" if wanted else "resume", session.before["cluster_name"])

        def missing(cluster: Cluster) -> list[str]:
            return [f"{one['name']} does not know yet" for one in cluster["members"] if not one["error"] and one["paused"] != wanted]

        result["cluster"] = session.wait(missing)
    return result


VERBS: dict[str, Callable[[Session, bool], dict[str, Any]]] = {
    "switchover": switchover,
    "failover": failover,
    "restarted": restarted,
    "reinitialized": reinitialized,
    "removed": removed,
    "vacated": vacated,
    "back": back,
    "paused": pause,
    "resumed": pause,
}


def deserted(options: Mapping[str, Any]) -> str:
    """Return why the Patroni of this host can hand nothing over, nothing when it can. Raises DockerError, DockerUnavailable."""
    client = DockerClient()
    try:
        container = find_container(client, options["project"], options["service"], optional=False)
        own_api(container, options["tls_dir"]).get("/patroni", timeout=QUICK)
    except (PatroniError, PsqlError) as error:
        return str(error)
    return ""


def moment(text: str | None) -> datetime | None:
    """Return a time with its offset.

    Raises:
        Refused: The text is no time, or has none.
    """
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise Refused(f"running_since is {text!r}, no time with an offset. Type it like 2026-11-24T22:00:00.123456+00:00")
    return parsed


def main() -> None:
    """Module entry."""
    module = AnsibleModule(
        argument_spec={
            **PATRONI_OPTIONS,
            "state": {"type": "str", "choices": list(VERBS), "required": True},
            "candidate": {"type": "str"},
            "member": {"type": "str"},
            "force": {"type": "bool", "default": False},
            "confirm": {"type": "str"},
            "staying": {"type": "list", "elements": "str", "default": []},
            "allow_leader": {"type": "bool", "default": False},
            "only_pending": {"type": "bool", "default": False},
            "running_since": {"type": "str"},
            "timeout": {"type": "int", "default": 180},
        },
        required_if=[("state", "failover", ["candidate"]), ("state", "reinitialized", ["member"]), ("state", "removed", ["member"])],
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "vacated" and (reason := deserted(module.params)):
            module.warn(f"PostgreSQL on this host: nothing is handed over, because {reason}")
            module.exit_json(changed=False, member=module.params["member"])
        session = Session({**module.params, "running_since": moment(module.params["running_since"])})
        result = VERBS[module.params["state"]](session, module.check_mode)
    except Refused as error:
        module.fail_json(msg=f"PostgreSQL, nothing was changed: {error}")
    except (PatroniError, PsqlError, DockerError, DockerUnavailable) as error:
        module.fail_json(msg=f"PostgreSQL: {error}")
    module.exit_json(**{"cluster": session.before, **result})


if __name__ == "__main__":
    main()
