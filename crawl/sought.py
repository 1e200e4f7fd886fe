"""The links that archives are searched for, held by their ids: twenty bytes each.

Rule: what is held does not grow with the length of URLs. Whoever needs more of a link looks it up
in what it reads: an id names one key.
"""

import functools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from string import ascii_lowercase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import canonical, url
from crawl.schema import LinkOutcome

COLUMNS = ("link_id", "host", "first_seen", "outcome")
"""What is read of the links."""
MAX_DOMAINS = 1 << 16
"""Domains beyond which hardly a part of a sorted index is without one: none is passed over then."""
NO_DAY = np.int32(-(2**31))

Places = np.ndarray[Any, np.dtype[np.int64]]


class Sought:
    """The kept links among `links`, batches with `COLUMNS`."""

    def __init__(self, links: Iterable[pa.RecordBatch]) -> None:
        ids, days, heads, hosts = bytearray(), bytearray(), bytearray(), set[str]()
        for batch in links:
            kept = batch.filter(pc.equal(batch["outcome"], LinkOutcome.KEPT.value))
            more = _bytes_of(kept["link_id"])
            ids += more
            heads += np.unique(np.frombuffer(more, np.uint32)[::4]).tobytes()
            numbers = kept["first_seen"].cast(pa.int32()).fill_null(int(NO_DAY))
            days += numbers.to_numpy().tobytes()
            if len(hosts) <= MAX_DOMAINS:
                hosts |= set(kept["host"].unique().to_pylist())
        # Over the very bytes: a copy would be as large as all else together.
        self._ids = np.frombuffer(ids, "S16")
        self._days = np.frombuffer(days, np.int32)
        if np.any(self._ids[1:] < self._ids[:-1]):
            order = np.argsort(self._ids, kind="stable")
            self._ids, self._days = self._ids[order], self._days[order]
        self._domains = np.unique(np.frombuffer(heads, np.uint32))
        self._bounds = _Bounds(hosts) if len(hosts) <= MAX_DOMAINS else None
        self.is_of_domain = functools.lru_cache(maxsize=url.HOSTS)(self._is_of_domain)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, identifier: bytes) -> bool:
        asked = np.array([identifier], "S16")  # not the bytes: of those, numpy drops a last zero
        at = self._ids.searchsorted(asked)[0]
        return bool(at < len(self._ids) and self._ids[at] == asked[0])

    def places(self, ids: pa.Array) -> Places:
        """Where each of these ids stands, to be handed to `days`; -1 where it is not sought, or
        null."""
        asked = np.frombuffer(_bytes_of(ids.fill_null(b"\0" * 16)), "S16")
        places = self._ids.searchsorted(asked).astype(np.int64)
        inside = places < len(self._ids)
        inside[inside] = self._ids[places[inside]] == asked[inside]
        inside &= ids.is_valid().to_numpy(zero_copy_only=False)
        return np.where(inside, places, -1)

    def days(self, places: Places) -> pa.Array:
        """The day of the first post of the link at each of these places; null where none is
        known."""
        days = self._days[places]
        return pa.array(days, pa.int32(), mask=days == NO_DAY).cast(pa.date32())

    def _is_of_domain(self, name: str) -> bool:
        """Whether a link is sought whose pages a host of this name may serve."""
        asked = url.fetch_url(f"http://{name}/")
        if asked is None or not len(self._domains):
            return False
        head = canonical.domain_id(canonical.key_host(url.host(asked)))
        number = np.frombuffer(head, np.uint32)[0]
        at = self._domains.searchsorted(number)
        return bool(at < len(self._domains) and self._domains[at] == number)

    def may_be_between(self, first: str, last: str) -> bool:
        """Whether rows whose SURT keys lie between these two, both included, can be of a link's
        domain; True where that is not known."""
        return self._bounds is None or self._bounds.meet(first, last)


class _Bounds:
    """Between which SURT keys the pages of some hosts' domains stand."""

    def __init__(self, hosts: Iterable[str]) -> None:
        domains = {url.registrable_domain(canonical.key_host(host)) for host in hosts}
        reversed_names = {_reversed(name) for one in domains for name in _spellings(one)}
        # A domain's name is followed by `)`, `,` or `:`; other domains can stand between.
        pairs = sorted((f"{name})", f"{name};") for name in reversed_names)
        self._lows = [low for low, _ in pairs]
        self._tops = list(accumulate((top for _, top in pairs), max))

    def meet(self, first: str, last: str) -> bool:
        below = bisect_right(self._lows, last)
        return below > 0 and self._tops[below - 1] > first


def _spellings(domain: str) -> Iterator[str]:
    """A domain, and those that `canonical.key_host` reads as it."""
    yield domain
    name, dot, rest = domain.partition(".")
    if dot and rest == "blogspot.com":
        countries = (a + b for a in ascii_lowercase for b in ascii_lowercase)
        yield from (
            f"{name}.blogspot.{mid}{one}" for one in countries for mid in ("", "com.", "co.")
        )


def _reversed(name: str) -> str:
    return ",".join(reversed(name.split(".")))


def _bytes_of(ids: pa.Array) -> bytes:
    """The values of a column of ids, one after another."""
    data = ids.buffers()[1]
    return data.slice(ids.offset * 16, len(ids) * 16).to_pybytes() if data else b""
