"""How a crawl is told to a person and to a program, while it runs and when it is over.

Pure: figures in, words out.
"""

from typing import Any

from crawl.bound import Bound
from crawl.status import Status
from pipeline.store import size

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
STATES = {
    "run": "the crawl goes on",
    "pause": "the crawl is paused: `webtext steer RECIPE go` lets it go on",
    "stop": "the crawl stops: what is in flight is ended first",
}


def lasting(seconds: float) -> str:
    """A duration in its two largest units, as `5 h 33 min`; of less than ten seconds, tenths."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    found: list[tuple[int, str]] = []
    for unit, length in UNITS:
        count, left = divmod(left, length)
        if count or found:
            found.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in found[:2] if count)


def before(bound: Bound) -> str:
    """What is to be expected of a crawl that begins."""
    told = f"crawl: {bound.total:,} pages of {bound.hosts:,} hosts"
    if not bound.total:
        return f"{told}: nobody is asked"
    return (
        f"{told}, at least {lasting(bound.seconds)} by politeness: "
        f"{bound.host}, {bound.pages:,} pages x {_delay(bound.delay_s)} s"
    )


def after(seconds: float, bound: Bound, found: Status) -> str:
    """What has become of it. `seconds`: how long it took; `found`: what all processes counted."""
    told = f"crawl: {_outcomes(found)}; took {lasting(seconds)}"
    bound_s, host = max((bound.seconds, bound.host), (found.bound_s, found.longest))
    if not bound_s:
        return told
    of = f" of {lasting(bound_s)} ({host})" if bound_s > bound.seconds else ""
    return f"{told}, {seconds / bound_s:.2f} times the politeness bound{of}"


def line(now: Status) -> str:
    """How far a crawl is, in one line."""
    return f"crawl: {'; '.join(lines(now))}"


def lines(now: Status) -> list[str]:
    """The same in three: what is done and left, hosts, outcomes."""
    rates = f"{now.pages_per_s:,.1f} pages/s, {size(now.bytes_per_s)}/s"
    return [
        f"{now.pages:,} pages, {now.left:,} left, {rates}, {_left(now)}",
        f"{now.active:,} hosts active, {now.waiting:,} waiting, {now.in_flight:,} in flight",
        _outcomes(now),
    ]


def plain(now: Status | None) -> dict[str, Any] | None:
    """The same for a program; None where nobody crawls."""
    if now is None:
        return None
    return {
        "state": now.state,
        "pages": now.pages,
        "left": now.left,
        "pages_per_s": round(now.pages_per_s, 3),
        "bytes": now.received,
        "bytes_per_s": round(now.bytes_per_s, 1),
        "hosts_active": now.active,
        "hosts_waiting": now.waiting,
        "in_flight": now.in_flight,
        "outcomes": now.outcomes,
        "seconds": round(now.seconds, 1),
        "eta_s": None if (eta_s := now.eta_s()) is None else round(eta_s, 1),
        "politeness_left_s": round(now.left_s, 1),
        "complaint": now.complaint or None,
    }


def _delay(seconds: float) -> str:
    return f"{seconds:,.1f}" if seconds >= 0.1 or not seconds else f"{seconds:.2g}"


def _left(now: Status) -> str:
    if now.state != "run":
        return {"pause": "paused", "stop": "stopping"}[now.state]
    eta_s = now.eta_s()
    return "no end in sight yet" if eta_s is None else f"{lasting(eta_s)} to go"


def _outcomes(now: Status) -> str:
    told = [f"{name} {count:,}" for name, count in now.outcomes.items()]
    return ", ".join(told) or "no outcome yet"
