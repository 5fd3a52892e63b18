# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe saw, as figures. Pure functions of times (seconds since 1970), answers and rows; the probe does the rest."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PRIMARY = 200
"""What a member answers to GET /primary when it is the primary."""

SESSION_EXPIRED = 100
"""The code of Odoo's JSON-RPC error for somebody who is not logged in."""

LEADERS = frozenset({"leader", "standby_leader"})
SYNCHRONOUS = frozenset({"sync_standby", "quorum_standby"})


class Gap(NamedTuple):
    """The longest time without an event."""

    seconds: float
    at: float
    """When it began."""


class Request(NamedTuple):
    """One HTTP request of a user."""

    sent: float
    seconds: float
    verdict: str
    """``ok``, ``failed`` or ``logout``."""
    words: str = ""
    """What was wrong with the answer."""


class Poll(NamedTuple):
    """One question to a member whether it is the primary."""

    sent: float
    received: float
    status: int
    """HTTP status; 0 when there was no answer."""


class Reign(NamedTuple):
    """Answers 200 of one member in a row. It was the primary from before *first_received* until after *last_sent*."""

    member: str
    first_sent: float
    first_received: float
    last_sent: float
    last_received: float


def longest_gap(times: Iterable[float], start: float, end: float) -> Gap:
    """Return the longest time within a window in which nothing happened, its borders included.

    Args:
        times: when something happened, in any order; what lies outside of the window is ignored.
        start: begin of the window.
        end: end of the window, not before its begin.
    """
    longest, last = Gap(0.0, start), start
    for time in [*sorted(moment for moment in times if start <= moment <= end), end]:
        if time - last > longest.seconds:
            longest = Gap(time - last, last)
        last = time
    return longest


def judge_page(status: int, location: str) -> tuple[str, str]:
    """Return verdict and words for a page that only users who are logged in get."""
    if status == 200:
        return "ok", ""
    if 300 <= status < 400 and "/web/login" in location:
        return "logout", f"{status} to /web/login"
    return "failed", f"{status} {location}".strip()


def judge_call(status: int, body: str) -> tuple[str, str]:
    """Return verdict and words for a JSON-RPC call, which answers 200 also when it failed."""
    try:
        answer = json.loads(body)
        error = answer.get("error")
    except (ValueError, AttributeError):
        return "failed", f"{status}, no JSON: {body[:80]!r}"
    if error is None and status == 200 and "result" in answer:
        return "ok", ""
    if isinstance(error, Mapping) and error.get("code") == SESSION_EXPIRED:
        return "logout", str(error.get("message"))
    data = error.get("data") if isinstance(error, Mapping) else None
    words = (data or {}).get("message") or (error or {}).get("message") if isinstance(error, Mapping) else error
    return "failed", f"{status}: {str(words)[:200]}"


def reigns(polls: Mapping[str, Sequence[Poll]]) -> list[Reign]:
    """Join each member's successive answers 200. Any other answer ends a reign, also none: nobody knows what it was meanwhile."""
    found: list[Reign] = []
    for member, answers in polls.items():
        current: Reign | None = None
        for poll in sorted(answers):
            if poll.status != PRIMARY:
                current = None
            elif current is None:
                current = Reign(member, poll.sent, poll.received, poll.sent, poll.received)
                found.append(current)
            else:
                current = current._replace(last_sent=poll.sent, last_received=poll.received)
                found[-1] = current
    return sorted(found, key=lambda reign: (reign.first_sent, reign.member))


def overlaps(found: Sequence[Reign]) -> list[tuple[Reign, Reign]]:
    """Return the pairs of different members that were certainly primary at the same moment.

    An answer was true at some moment between question and answer, so two members overlap when each had said yes before the last
    question to which the other one said yes. Of each pair at least one answer lies between two of the other's.
    """
    return [
        (one, other)
        for number, one in enumerate(found)
        for other in found[number + 1 :]
        if one.member != other.member and one.first_received < other.last_sent and other.first_received < one.last_sent
    ]


def cluster_problems(cluster: Mapping[str, Any] | None, members: Collection[str]) -> list[str]:
    """Return what keeps a cluster from being as it should be: every member there and following, one of them synchronously.

    Args:
        cluster: Patroni's answer to GET /cluster; None when nobody answered.
        members: names that must be there.
    """
    if cluster is None:
        return ["no member of the cluster answers"]
    found: list[str] = []
    present = {str(member.get("name")): member for member in cluster.get("members", [])}
    leaders = [name for name, member in present.items() if member.get("role") in LEADERS]
    if not leaders:
        found.append("nobody leads the cluster")
    timeline = present[leaders[0]].get("timeline") if leaders else None
    for name in members:
        member = present.get(name)
        if member is None:
            found.append(f"{name} is not in the cluster")
        elif name in leaders:
            if member.get("state") != "running":
                found.append(f"{name} leads and is {member.get('state')}")
        elif member.get("state") != "streaming":
            found.append(f"{name} is {member.get('state')} and does not stream")
        elif leaders and member.get("timeline") != timeline:
            found.append(f"{name} is on timeline {member.get('timeline')} and the leader on {timeline}")
    if cluster.get("pause"):
        found.append("the cluster is paused, so nobody would take over")
    if not any(member.get("role") in SYNCHRONOUS for member in present.values()):
        found.append("there is no synchronous standby, so a failover could lose writes")
    return found


def view_problems(last: Mapping[str, Poll | None], now: float, patience: float = 2.0) -> list[str]:
    """Return what is wrong with the members' own answers: all must answer now, one of them as primary.

    etcd remembers a member that was cut off for a whole lease; only the member itself says that it is there.

    Args:
        last: each member's last answer.
        now: the present time.
        patience: seconds after which an answer is too old.
    """
    found = []
    for member, poll in last.items():
        if poll is None or poll.status == 0 or now - poll.received > patience:
            found.append(f"{member} does not answer")
    primaries = [member for member, poll in last.items() if poll is not None and poll.status == PRIMARY]
    if len(primaries) != 1:
        found.append(f"{' and '.join(primaries) or 'nobody'} {'say' if len(primaries) > 1 else 'says'} to be the primary")
    return found


def summarise(
    *,
    writes: Mapping[str, Sequence[float]],
    errors: Mapping[str, int],
    lost: int,
    requests: Sequence[Request],
    polls: Mapping[str, Sequence[Poll]],
    warm: float,
    start: float,
    end: float,
) -> dict[str, Any]:
    """Return the figures of a probe.

    Args:
        writes: path to the times at which its writes were acknowledged.
        errors: path to the number of writes that were refused or broken off.
        lost: acknowledged writes that are not there.
        requests: what users got.
        polls: what members said.
        warm: when everything worked for the first time; until *start* nothing was done to the platform.
        start: begin of the measurement.
        end: end of the measurement.

    Returns:
        Plain data. ``stall_s`` is the longest time without an acknowledged write on the path where that was the longest: a
        path that works does not hide another one that does not.
    """
    stalls = {path: longest_gap(times, start, end) for path, times in writes.items()}
    usual = [longest_gap(times, warm, start).seconds for times in writes.values()]
    seen = [request for request in requests if request.sent + request.seconds >= start]
    ruled = reigns(polls)
    return {
        "start": start,
        "end": end,
        "stall_s": round(max((gap.seconds for gap in stalls.values()), default=0.0), 3),
        "usual_stall_s": round(max(usual, default=0.0), 3),
        "stalls": {path: {"seconds": round(gap.seconds, 3), "at": gap.at} for path, gap in stalls.items()},
        "writes": sum(map(len, writes.values())),
        "write_errors": dict(errors),
        "lost_writes": lost,
        "requests": len(seen),
        "failed_requests": sum(request.verdict == "failed" for request in seen),
        "logouts": sum(request.verdict == "logout" for request in seen),
        "slowest_request_s": round(max((request.seconds for request in seen), default=0.0), 3),
        "complaints": [f"{request.verdict}: {request.words}" for request in seen if request.verdict != "ok"][:10],
        "reigns": [list(reign) for reign in ruled],
        "two_primaries": len(overlaps(ruled)),
    }
