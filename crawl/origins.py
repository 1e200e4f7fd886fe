"""What each origin (scheme, host, port) allows, and for how long that is known (RFC 9309, 2.4).

Pure state: the moment is handed in, as seconds of one clock. An answer is used for 24 hours. Where
a renewal fails, the copy at hand is used on, as section 2.4 has it; where there is none, all is
forbidden until the file has been unreachable for 30 days, and then allowed (2.3.1.4).
"""

from dataclasses import dataclass, replace

from crawl.robots import CACHE_S, Rules

UNREACHABLE_S = 3600.0
"""Seconds after which a file that could not be had is asked for again."""
UNDEFINED_S = 30 * 24 * 3600.0
"""The reasonably long period of section 2.3.1.4."""
MAX_BYTES = 64 * 1024 * 1024
"""What the rules of all origins may take, about; those settled longest ago are forgotten first."""


@dataclass(frozen=True, slots=True)
class _Known:
    rules: Rules
    until: float
    copy: Rules | None
    since: float | None

    def weight(self) -> int:
        copied = self.copy.weight() if self.copy and self.copy is not self.rules else 0
        return self.rules.weight() + copied


class Origins:
    """The rules of the origins that are being crawled. Asking again after a forgotten origin is
    always right."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        # of origins that are not known: when their robots.txt was first found unreachable
        self._since: dict[str, float] = {}
        self._known: dict[str, _Known] = {}
        self._max_bytes, self._bytes = max_bytes, 0

    def known(self, origin: str, now: float) -> Rules | None:
        """What an origin allows; None where it has to be asked (again)."""
        found = self._known.get(origin)
        return found.rules if found and now < found.until else None

    def settle(self, origin: str, rules: Rules, now: float) -> Rules:
        """Takes the rules that an answer, or its failing, gave; returns those that count now."""
        before = self._take(origin)
        if not rules.unreachable:
            self._since.pop(origin, None)
            self._put(origin, _Known(rules, now + CACHE_S, rules, None))
            return rules
        since = min(now, self._since.pop(origin, now))
        copy = before.copy if before else None
        if before and before.since is not None:
            since = min(since, before.since)
        counts = copy or rules
        if copy is None and now - since >= UNDEFINED_S:
            counts = replace(rules, unreachable=False)
        self._put(origin, _Known(counts, now + UNREACHABLE_S, copy, since))
        return counts

    def unreachable_since(self, origin: str) -> float | None:
        """When an origin's robots.txt was first found unreachable; None where it was had."""
        found = self._known.get(origin)
        return found.since if found else self._since.get(origin)

    def remember(self, origin: str, since: float) -> None:
        """An earlier run found an origin's robots.txt unreachable since then."""
        if origin not in self._known:
            self._since[origin] = min(since, self._since.get(origin, since))

    def __contains__(self, origin: str) -> bool:
        """Whether an origin's rules are held, be they of use still or not."""
        return origin in self._known

    def __len__(self) -> int:
        """How many origins' rules are held."""
        return len(self._known)

    def _take(self, origin: str) -> _Known | None:
        found = self._known.pop(origin, None)
        self._bytes -= found.weight() if found else 0
        return found

    def _put(self, origin: str, known: _Known) -> None:
        self._known[origin] = known
        self._bytes += known.weight()
        while self._bytes > self._max_bytes and len(self._known) > 1:
            oldest = next(iter(self._known))
            found = self._take(oldest)
            if found and found.since is not None:  # its date is small, and must not begin anew
                self._since[oldest] = found.since
