# Copyright (c) 2026 berth.odoo contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL cluster as Patroni's members describe it, and what may be done to it, as pure functions.

``describe`` makes one description of all answers; everything else reads that. Names of its keys are documented as the return
values of the module ``postgresql_cluster_info``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ._patroni import PRIMARY_FIRST

# What Patroni assumes for a key that its configuration does not have (patroni/global_config.py, patroni/config.py of 4.0).
_DEFAULTS = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1048576, "synchronous_node_count": 1}
ARCHIVE_LATE_S = 300
"""WAL that waits longer for archive_command is a problem: it fills the disk, and a restore would lack it."""

_LEADERS = ("leader", "standby_leader")
_SYNCHRONOUS = ("sync_standby", "quorum_standby")
_SYNCHRONOUS_MODES = ("on", "quorum")


class Refused(Exception):
    """A command that would hurt, or cannot work. The message says why and what to type instead."""


def _truth(value: Any) -> bool:
    """Return a setting as Patroni understands it: also as text."""
    return str(value).lower() in ("true", "on", "yes", "1")


def _number(config: Mapping[str, Any], name: str) -> int:
    """Return a whole number of the configuration, or Patroni's default for what is missing or none."""
    value = str(config.get(name, "")).strip()
    return int(value) if re.fullmatch(r"-?\d+", value) else _DEFAULTS[name]


def _behind(position: int | None, other: int | None) -> int | None:
    """Return by how many bytes of WAL a position is behind another one; the two are read at slightly different times."""
    return None if position is None or other is None else max(0, other - position)


def _member(listed: Mapping[str, Any], answer: Mapping[str, Any] | str | None, leader_position: int | None) -> dict[str, Any]:
    """Return the description of one member from its entry in ``GET /cluster`` and its own ``GET /patroni``."""
    status = answer if isinstance(answer, Mapping) else {}
    leads = listed["role"] in _LEADERS
    xlog = status.get("xlog") or {}
    lag = listed.get("lag")
    reason = status.get("pending_restart_reason") if status else listed.get("pending_restart_reason")
    return {
        "name": listed["name"],
        "role": listed["role"],
        "host": listed.get("host"),
        "port": listed.get("port"),
        # Its own word is newer than what it last wrote to etcd.
        "state": (not leads and status.get("replication_state")) or status.get("state") or listed["state"],
        "timeline": listed.get("timeline"),
        "lag_bytes": lag if isinstance(lag, int) and not leads else None,
        "receive_lag_bytes": None if leads else _behind(xlog.get("received_location"), leader_position),
        "replay_lag_bytes": None if leads else _behind(xlog.get("replayed_location"), leader_position),
        "wal_position": xlog.get("location", xlog.get("received_location")),
        "pending_restart": bool(reason) or bool((status or listed).get("pending_restart")),
        "pending_restart_reason": dict(reason or {}),
        "tags": dict(listed.get("tags") or {}),
        "writable": (status.get("role"), status.get("state")) == ("primary", "running"),
        "paused": bool(status.get("pause")),
        "started_at": status.get("postmaster_start_time"),
        "error": answer if isinstance(answer, str) else "",
    }


def describe(
    status: Mapping[str, Any],
    answers: Mapping[str, Mapping[str, Any] | str],
    cluster: Mapping[str, Any] | str,
    config: Mapping[str, Any] | None,
    now: float,
    health: Mapping[str, Any] | str | None = None,
) -> dict[str, Any]:
    """Return one description of a cluster.

    Args:
        status: ``GET /patroni`` of the member on this host, which it answers from memory.
        answers: The same of each member by its name, or the reason why there is none.
        cluster: ``GET /cluster``, or the reason why there is no answer: etcd is away. For some time Patroni answers from a copy of it.
        config: ``GET /config``, None when that has no answer either.
        now: Seconds since the epoch by the clock of this host.
        health: What PostgreSQL on this host answers to HEALTH_SCRIPT, or why it does not; None when it was not asked.
    """
    own = status["patroni"]["name"]
    dcs_error = _dcs_error(status, cluster, config, now)
    if isinstance(cluster, str):
        role = "leader" if status["role"] == "primary" else "replica"
        state = status.get("replication_state") or status["state"]
        cluster = {"members": [{"name": own, "role": role, "state": state, "timeline": status.get("timeline"), "tags": status.get("tags")}]}
    leader = next((member["name"] for member in cluster["members"] if member["role"] in _LEADERS), None)
    leader_status = answers.get(leader) if leader else None
    position = (leader_status.get("xlog") or {}).get("location") if isinstance(leader_status, Mapping) else None
    scheduled = cluster.get("scheduled_switchover")
    description = {
        "cluster_name": status["patroni"]["scope"],
        "system_identifier": status.get("database_system_identifier"),
        "member": own,
        "leader": leader,
        "members": [_member(listed, answers.get(listed["name"]), position) for listed in cluster["members"]],
        "paused": bool(cluster.get("pause", status.get("pause"))),
        "failsafe_active": bool(status.get("failsafe_mode_is_active")),
        "scheduled_switchover": {key: scheduled.get(key) for key in ("at", "from", "to")} if scheduled else None,
        **_settings(config),
        "dcs_error": dcs_error,
        "health": health if isinstance(health, Mapping) else None,
    }
    description["restart_in_place"] = restart_in_place(description)
    description["problems"] = problems(description) + _health_problems(description, health)
    description["summary"] = summary(description)
    return description


def _dcs_error(status: Mapping[str, Any], cluster: Mapping[str, Any] | str, config: Mapping[str, Any] | None, now: float) -> str:
    """Return why etcd counts as away for this member, nothing when it does not."""
    if isinstance(cluster, str):
        return cluster
    age = now - status.get("dcs_last_seen", now)
    patience = _number(config or {}, "loop_wait") + _number(config or {}, "retry_timeout")
    return f"Patroni reached it {age:.0f} s ago" if age > patience else ""


def _settings(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the configuration that all members share says, everything None when it could not be read."""
    if config is None:
        names = ("synchronous_mode", "synchronous_mode_strict", "failsafe_mode", "expected_stall", *_DEFAULTS)
        return dict.fromkeys(names)
    mode = config.get("synchronous_mode")
    numbers = {name: _number(config, name) for name in _DEFAULTS}
    return {
        "synchronous_mode": "quorum" if str(mode).lower() == "quorum" else "on" if _truth(mode) else "off",
        "synchronous_mode_strict": _truth(config.get("synchronous_mode_strict")),
        "failsafe_mode": _truth(config.get("failsafe_mode")),
        "expected_stall": expected_stall(numbers),
        **numbers,
    }


def expected_stall(settings: Mapping[str, int]) -> dict[str, int]:
    """Return how long nobody leads after the leader's machine is gone: seconds until its lease in etcd ends.

    The lease was renewed at most ``loop_wait`` seconds before. Promotion itself takes about 0.1 s.
    """
    return {"min_seconds": settings["ttl"] - settings["loop_wait"], "max_seconds": settings["ttl"]}


def _named(cluster: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member. Raises Refused when there is none of this name."""
    for member in cluster["members"]:
        if member["name"] == name:
            return member
    names = ", ".join(f"{member['name']} ({member['role']})" for member in cluster["members"])
    raise Refused(f"{name} is no member of {cluster['cluster_name']}. Its members are: {names}")


def _leader(cluster: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the member that leads, None when nobody does."""
    return _named(cluster, cluster["leader"]) if cluster["leader"] else None


def _member_problems(cluster: Mapping[str, Any], member: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with one member, sentences without its name."""
    leader = _leader(cluster)
    limit = cluster["maximum_lag_on_failover"]
    found = []
    if member["error"]:
        found.append(f"does not answer: {member['error']}")
    if member["state"] in ("starting", "start failed") and leader and leader is not member:
        # What a rewind leaves behind that ended half way, for lack of space, never comes up.
        found.append(f"is {member['state']}. When it stays so for minutes, it cannot follow any more; type: {_reinit(member['name'])}")
    elif member["state"] not in ("running", "streaming"):
        found.append(f"is {member['state'] or 'in no known state'}")
    elif leader and leader is not member:
        if member["state"] == "running" and not member["error"]:
            found.append(f"runs and receives nothing. When its log says that WAL was removed, type: {_reinit(member['name'])}")
        if leader["timeline"] and member["timeline"] and member["timeline"] != leader["timeline"]:
            found.append(f"is on timeline {member['timeline']} and the leader on {leader['timeline']}: it does not follow")
        if member["lag_bytes"] is None:
            found.append("repeats from an unknown position")
        elif member["lag_bytes"] > limit:
            found.append(f"is {member['lag_bytes']} bytes behind, more than maximum_lag_on_failover ({limit}) lets take over")
    return found


def problems(cluster: Mapping[str, Any]) -> list[str]:
    """Return what an operator should know, one sentence each; nothing when all is well."""
    found = []
    if cluster["failsafe_active"]:
        found.append("etcd is away and the leader goes on because all members agree (failsafe mode): nobody can take over meanwhile")
    if cluster["dcs_error"]:
        found.append(f"Patroni on the host of {cluster['member']} does not reach etcd, so this may be old: {cluster['dcs_error']}")
    if not cluster["leader"] and not cluster["dcs_error"]:
        found.append("the cluster has no leader: nothing can be written")
    standbys = [member for member in cluster["members"] if member["role"] in _SYNCHRONOUS]
    wanted = cluster["synchronous_node_count"] if cluster["synchronous_mode"] in _SYNCHRONOUS_MODES else 0
    if len(standbys) < wanted:
        effect = "commits wait for one" if cluster["synchronous_mode_strict"] else "a commit is on one machine only"
        found.append(f"{len(standbys)} of {wanted} synchronous standbys are there although synchronous_mode is on: {effect}")
    for member in cluster["members"]:
        found += [f"{member['name']} {problem}" for problem in _member_problems(cluster, member)]
        if member["pending_restart"]:
            found.append(f"{member['name']} waits for a restart{_changes(member)}. Type: ansible-playbook … berth.odoo.restart_rolling")
    if cluster["paused"]:
        found.append(
            f"Patroni is paused: nobody takes over when the leader dies. Type: {_patronictl('resume', '--wait', cluster['cluster_name'])}"
        )
    return found


def _health_problems(cluster: Mapping[str, Any], health: Mapping[str, Any] | str | None) -> list[str]:
    """Return what the PostgreSQL of this host says of itself, one sentence each, with what to type."""
    name = cluster["member"]
    if health is None:
        return []
    if isinstance(health, str):
        return [f"{name} does not answer questions: {health}"]
    found = []
    for database, count in sorted(health["damaged"].items()):
        first = (
            f"hand over first (berth.odoo.switchover), then type: {_reinit(name)}"
            if cluster["leader"] == name
            else f"type: {_reinit(name)}"
        )
        found.append(
            f"{name} read damaged pages in {database}, {count} times: its disk or memory is bad. What others have is whole; {first}"
        )
    for slot in health["lost_slots"]:
        [member] = [one["name"] for one in cluster["members"] if slot_name(one["name"]) == slot] or [slot]
        # On the leader: a replica keeps copies of the others' slots, which it does not need.
        if cluster["leader"] == name:
            found.append(
                f"{member} was away for longer than its WAL is kept (max_slot_wal_keep_size), and needs a new copy: {_reinit(member)}"
            )
    if health["archive_waiting_s"] > ARCHIVE_LATE_S and cluster["leader"] == name:
        found.append(
            f"{health['archive_waiting']} WAL files of {name} wait for archive_command, the oldest for {health['archive_waiting_s'] // 60} minutes: it "
            "fails or hangs, and the disk fills. Type on its host: docker logs --tail 50 postgresql-postgresql-1"
        )
    return found


def _reinit(member: str) -> str:
    """Return how a replica is copied anew."""
    return f"ansible-playbook … berth.odoo.reinit_replica -e target={member} -e confirm={member}"


def _patronictl(*words: str) -> str:
    """Return what to type on a database host."""
    return " ".join(["docker exec postgresql-postgresql-1 patronictl", *words])


def _changes(member: Mapping[str, Any]) -> str:
    """Return the parameters that wait for a restart, in parentheses after a space, or nothing."""
    changes = [f"{name} {change.get('old_value')} → {change.get('new_value')}" for name, change in member["pending_restart_reason"].items()]
    return f" ({', '.join(changes)})" if changes else ""


def summary(cluster: Mapping[str, Any]) -> list[str]:
    """Return one line for the cluster and one a member, for a person."""
    mode = {"off": ", asynchronous", "on": ", synchronous", "quorum": ", synchronous by quorum"}.get(cluster["synchronous_mode"], "")
    state = ", paused" if cluster["paused"] else ""
    rows = [("MEMBER", "ROLE", "STATE", "TIMELINE", "BEHIND", "")]
    for member in cluster["members"]:
        behind = "" if member["role"] in _LEADERS else "unknown" if member["lag_bytes"] is None else f"{member['lag_bytes']} B"
        note = "restart pending" if member["pending_restart"] else ""
        rows.append((member["name"], member["role"], member["state"], str(member["timeline"] or "-"), behind, note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"{cluster['cluster_name']}: led by {cluster['leader'] or 'nobody'}{mode}{state}", *lines]


# --- what may be done --------------------------------------------------------------------------------------------------------------


def need_dcs(cluster: Mapping[str, Any]) -> None:
    """Raise Refused while etcd is away: commands reach members through it, and nobody takes over without it."""
    if cluster["failsafe_active"] or cluster["dcs_error"]:
        raise Refused(f"etcd is away, and commands need it: {cluster['dcs_error'] or 'the leader goes on in failsafe mode'}")


def _need_answer(member: Mapping[str, Any]) -> None:
    """Raise Refused when a member's Patroni does not answer: it could not be told anything."""
    if member["error"]:
        raise Refused(f"{member['name']} does not answer: {member['error']}")


def _unfit(cluster: Mapping[str, Any], member: Mapping[str, Any]) -> list[str]:
    """Return why a member should not take over from a leader that is well, sentences without its name."""
    found = _member_problems(cluster, member)
    if not _priority(member["tags"]):
        found.append("is tagged nofailover")
    if member["state"] != "streaming" and not found:
        found.append(f"is {member['state']} and does not stream")
    if cluster["synchronous_mode"] in _SYNCHRONOUS_MODES and member["role"] not in _SYNCHRONOUS:
        found.append("is no synchronous standby, so it may lack what was acknowledged")
    return found


def switchover_target(cluster: Mapping[str, Any], candidate: str | None) -> str:
    """Return who should lead: the candidate, or the best of those that can. The leader itself: nothing to do.

    Raises:
        Refused: Nobody, or not the candidate, could take over without loss.
    """
    name = cluster["cluster_name"]
    need_dcs(cluster)
    leader = _leader(cluster)
    if candidate and _named(cluster, candidate) is leader:
        return candidate
    if leader is None:
        raise Refused(
            f"{name} has no leader that could hand over. When none comes back by itself within {cluster['ttl']} s, promote a member with "
            "berth.odoo.postgresql_cluster: state failover, candidate, force"
        )
    if leader["error"]:
        raise Refused(f"{leader['name']} leads and does not answer, so that nobody could see it hand over: {leader['error']}")
    if cluster["paused"]:
        raise Refused(f"{name} is paused. First type: {_patronictl('resume', '--wait', name)}")
    if cluster["scheduled_switchover"]:
        raise Refused(
            f"{name} has a switchover scheduled at {cluster['scheduled_switchover']['at']}. To drop that, type: "
            f"{_patronictl('flush', name, 'switchover', '--force')}"
        )
    others = [member for member in cluster["members"] if member is not leader]
    if not others:
        raise Refused(f"{leader['name']} is the only member of {name}: there is nobody to hand over to")
    unfit = {member["name"]: _unfit(cluster, member) for member in others}
    if candidate:
        if unfit[candidate]:
            fit = [other for other, reasons in unfit.items() if not reasons]
            advice = f"Name another one: {', '.join(fit)}" if fit else "No other member can take over either"
            raise Refused(f"{candidate} cannot take over: it {', and it '.join(unfit[candidate])}. {advice}")
        return candidate
    fit_members = [member for member in others if not unfit[member["name"]]]
    if not fit_members:
        reasons = "; ".join(f"{other} {', '.join(why)}" for other, why in unfit.items())
        raise Refused(f"no member of {name} can take over: {reasons}")
    return str(min(fit_members, key=_preference)["name"])


def switchover_takers(cluster: Mapping[str, Any], candidate: str | None) -> list[str]:
    """Return who may lead after a switchover, the best first: the candidate, or of a quorum all that are as good as the best.

    While a switchover to a name is on, Patroni sends everybody else to sleep for two seconds between the two leaders (ha.py, process_unhealthy_cluster),
    and so whoever would confirm the first commits. Without a name they race, and who loses follows at once.

    Raises:
        Refused: As switchover_target.
    """
    best = switchover_target(cluster, candidate)
    if candidate or cluster["synchronous_mode"] != "quorum":
        return [best]
    wanted = _priority(_named(cluster, best)["tags"])
    others = [member for member in cluster["members"] if member["name"] not in (best, cluster["leader"])]
    return [best, *(one["name"] for one in others if not _unfit(cluster, one) and _priority(one["tags"]) == wanted)]


def _preference(member: Mapping[str, Any]) -> tuple[int, int, str]:
    """Sort members: those that the operator prefers first, then those that have least to repeat."""
    return -_priority(member["tags"]), member["replay_lag_bytes"] or 0, member["name"]


def _priority(tags: Mapping[str, Any]) -> int:
    """Return how much the operator wants a member to lead, 0 for never. As Patroni, nofailover counts before failover_priority."""
    if "nofailover" in tags:
        return 0 if _truth(tags["nofailover"]) else 1
    priority = str(tags.get("failover_priority", 1))
    return max(0, int(priority)) if re.fullmatch(r"-?\d+", priority) else 1


def must_hand_over(cluster: Mapping[str, Any], member: str) -> bool:
    """Return whether a member that goes away for a while has to hand the leading role over first: when it leads and is not alone.

    Raises:
        Refused: Without the member nobody would be left who can lead, or confirm commits.
    """
    named = _named(cluster, member)
    name = cluster["cluster_name"]
    leader = _leader(cluster)
    if leader is named and len(cluster["members"]) == 1:
        return False
    need_dcs(cluster)
    if leader is named:
        switchover_target(cluster, None)
        return True
    if leader is None:
        raise Refused(f"{name} has no leader, and {member} may be the one that could lead. See docs/database.md, Nobody leads")
    if cluster["paused"]:
        raise Refused(f"{name} is paused: nobody takes over if the leader dies. First type: {_patronictl('resume', '--wait', name)}")
    others = [one for one in cluster["members"] if one is not named and one is not leader]
    if others and named["state"] == "streaming" and not any(one["state"] == "streaming" for one in others):
        states = ", ".join(f"{one['name']} is {one['error'] or one['state'] or 'in no known state'}" for one in others)
        raise Refused(
            f"without {member} no standby would be left: {states}. Repair that one first (berth.odoo.reinit_replica copies it anew)"
        )
    return False


def not_back(cluster: Mapping[str, Any], member: str) -> list[str]:
    """Return what a member that was away still lacks: sentences, nothing when it leads, or follows and confirms commits again."""
    found = unsettled(cluster, [member])
    named = _named(cluster, member)
    confirms = named["role"] in (*_LEADERS, *_SYNCHRONOUS) or _truth(named["tags"].get("nosync", False))
    if not found and cluster["synchronous_mode"] == "quorum" and not confirms:
        found.append(f"{member} streams and does not confirm commits yet")
    return found


def failover_target(cluster: Mapping[str, Any], candidate: str, *, force: bool) -> str:
    """Return who should lead a cluster without leader: the candidate. The leader itself: nothing to do.

    Raises:
        Refused: There is a leader, nobody said that a loss is accepted, or another member has more.
    """
    name = cluster["cluster_name"]
    need_dcs(cluster)
    member = _named(cluster, candidate)
    if cluster["leader"] == candidate:
        return candidate
    leader = _leader(cluster)
    if leader and leader["error"]:
        raise Refused(
            f"{leader['name']} still has the lease of {name} for up to {cluster['ttl']} s and does not answer. Look again then: "
            f"a standby takes over by itself when it can. {leader['error']}"
        )
    if leader:
        raise Refused(
            f"{leader['name']} leads {name}, so nothing has to be forced. Hand over with: state switchover, candidate {candidate}"
        )
    if not force:
        raise Refused(f"promoting {candidate} by force can lose what the last leader acknowledged. To accept that, set: force true")
    _need_answer(member)
    if not _priority(member["tags"]):
        raise Refused(f"{candidate} is tagged nofailover, and Patroni does not promote it")
    ahead = {other["name"]: _behind(member["wal_position"], other["wal_position"]) or 0 for other in cluster["members"]}
    best = max(ahead, key=lambda other: ahead[other])
    if ahead[best] > 0:
        raise Refused(f"{best} has {ahead[best]} bytes more than {candidate}, which would be lost. Name it instead: candidate {best}")
    return candidate


def check_reinitialize(cluster: Mapping[str, Any], member: str, confirm: str | None) -> bool:
    """Return whether the member is to be told: no when it is being copied already.

    Raises:
        Refused: It leads, nobody leads, or the deletion of its data was not confirmed.
    """
    named = _named(cluster, member)
    need_dcs(cluster)
    if cluster["leader"] == member:
        raise Refused(f"{member} leads {cluster['cluster_name']}: what it has is the data. Only a replica can be made anew")
    if not cluster["leader"]:
        raise Refused(f"{cluster['cluster_name']} has no leader to copy from")
    if confirm != member:
        given = f"is {confirm!r}" if confirm else "is not set"
        raise Refused(f"this deletes the data of {member} and copies it from another member. confirm {given}; type: confirm={member}")
    _need_answer(named)
    return bool(named["state"] != "creating replica")


def check_remove(cluster: Mapping[str, Any], member: str, confirm: str | None, staying: Sequence[str] = ()) -> bool:
    """Return whether a member is still there to be removed.

    Args:
        cluster: Description.
        member: Name.
        confirm: The same, once more.
        staying: Members that there should be afterwards. Patroni forgets one that is stopped.

    Raises:
        Refused: It leads, nobody leads, what would be left has no standby that confirms commits, or it was not confirmed.
    """
    need_dcs(cluster)
    name = cluster["cluster_name"]
    if cluster["leader"] == member:
        others = " or ".join(other["name"] for other in cluster["members"] if other["name"] != member)
        advice = (
            f"Hand over first: berth.odoo.switchover -e target={others}"
            if others
            else "It is the only member: there is nobody to hand over to"
        )
        raise Refused(f"{member} leads {name}. {advice}")
    if not cluster["leader"]:
        raise Refused(f"{name} has no leader, and {member} may be the one that has everything")
    if confirm != member:
        given = f"is {confirm!r}" if confirm else "is not set"
        raise Refused(f"this takes {member} out of {name} for good. confirm {given}; type: confirm={member}")
    left = {other["name"]: _unfit(cluster, other) for other in cluster["members"]}
    left = {name: ["is no member now"] for name in staying} | left
    unfit = {other: reasons for other, reasons in left.items() if other not in (member, cluster["leader"])}
    if unfit and cluster["synchronous_mode"] in _SYNCHRONOUS_MODES and all(unfit.values()):
        reasons = "; ".join(f"{other} {', '.join(why)}" for other, why in unfit.items())
        raise Refused(f"without {member} nobody could take over from {cluster['leader']}: {reasons}. Repair that first")
    return any(other["name"] == member for other in cluster["members"])


def slot_name(member: str) -> str:
    """Return the name of a member's replication slot, as Patroni makes it (dcs/__init__.py, slot_name_from_member_name)."""
    return re.sub(r"[^a-z0-9_]", lambda found: "_" if found[0] in "-." else f"u{ord(found[0]):04d}", member.lower())[:63]


def restart_in_place(cluster: Mapping[str, Any]) -> str:
    """Return why a restart of the leader cannot be spared by a switchover, nothing when it can."""
    leader = _leader(cluster)
    if leader and len(cluster["members"]) == 1:
        return f"{leader['name']} is the only member"
    changes = leader["pending_restart_reason"] if leader else {}
    lowered = [name for name, change in sorted(changes.items()) if name in PRIMARY_FIRST and _lowers(change)]
    return f"a standby does not run with less than its primary of {', '.join(lowered)}" if lowered else ""


def _lowers(change: Mapping[str, Any]) -> bool:
    """Return whether a pending change of a number makes it smaller."""
    try:
        return int(change["new_value"]) < int(change["old_value"])
    except (KeyError, TypeError, ValueError):
        return False


def restart_needed(
    cluster: Mapping[str, Any], member: str, *, allow_leader: bool, only_pending: bool, running_since: datetime | None
) -> bool:
    """Return whether a member is to be restarted.

    Args:
        cluster: Description.
        member: Name.
        allow_leader: The leader too. Everybody who uses the database will notice.
        only_pending: Only when parameters wait for it.
        running_since: Only when PostgreSQL has been running since this time or longer.

    Raises:
        Refused: It leads and that was not allowed, or it does not say since when it runs.
    """
    named = _named(cluster, member)
    need_dcs(cluster)
    if only_pending and not named["pending_restart"]:
        return False
    if running_since:
        _need_answer(named)
        if not named["started_at"]:
            raise Refused(f"{member} does not say since when its PostgreSQL runs: it is {named['state']}")
        if datetime.fromisoformat(named["started_at"]) > running_since:
            return False
    _need_answer(named)
    if cluster["leader"] == member and not allow_leader:
        raise Refused(
            f"{member} leads {cluster['cluster_name']}: restarting it interrupts everybody. Hand over first (state switchover), or set: "
            "allow_leader true"
        )
    return True


def unsettled(cluster: Mapping[str, Any], following: Sequence[str]) -> list[str]:
    """Return what is still missing after a command: sentences, nothing when the cluster is as it should be.

    Args:
        cluster: Description.
        following: Members that must follow the leader again; those that were ill before do not count.
    """
    leader = _leader(cluster)
    if leader is None:
        return ["nobody leads"]
    found = [] if leader["writable"] else [f"{leader['name']} leads and does not accept writes"]
    followers = [_named(cluster, name) for name in following if name != leader["name"]]
    for member in followers:
        name = member["name"]
        if member["state"] != "streaming":
            found.append(f"{name} is {member['state'] or 'in no known state'} and does not stream")
        elif member["timeline"] != leader["timeline"]:
            found.append(f"{name} is on timeline {member['timeline']}, the leader on {leader['timeline']}")
    synchronous = any(member["role"] in _SYNCHRONOUS for member in cluster["members"])
    if cluster["synchronous_mode"] in _SYNCHRONOUS_MODES and followers and not synchronous:
        found.append("there is no synchronous standby")
    return found


def following(cluster: Mapping[str, Any], *also: str) -> list[str]:
    """Return the members that follow the leader now, and others that should after a command."""
    names = [member["name"] for member in cluster["members"] if member["state"] == "streaming" or member["role"] in _LEADERS]
    return sorted({*names, *also})


def promotion(history: Sequence[Sequence[Any]], timeline: int | None) -> dict[str, Any] | None:
    """Return how a timeline ended according to Patroni's history (``GET /history``), None when it does not say that yet.

    An entry is timeline, position, reason, time of the promotion, new leader; the last two are missing in what PostgreSQL
    remembers from before Patroni.
    """
    for entry in history:
        if entry[0] == timeline and len(entry) >= 5:
            return {"timeline": entry[0] + 1, "promoted_at": entry[3], "leader": entry[4], "reason": entry[2]}
    return None
