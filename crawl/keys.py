"""Fetch URLs, keys and ids of a whole column of texts: what `crawl/url.py` says, faster.

Rule: never another answer than row by row. A text of which every part is plain takes the short way,
over Arrow's kernels; the others, some one in twenty of a dump, take the long one.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import canonical, url
from crawl.schema import ID

ESCAPED = "%(?:[0189A-F][0-9A-F]|2[02-6BF]|3[A-F]|40|5[B-E]|60|7[B-DF])"
"""In capitals, and of no byte that would stand for itself."""
SIGNS = r"A-Za-z0-9_~/.!$&'()*+,:=@\[\]\-"
PLAIN = (
    rf"^https?://[a-z0-9.-]{{1,253}}(?:/(?:[{SIGNS}]|{ESCAPED})*"
    rf"(?:\?(?:[{SIGNS}?]|{ESCAPED})*)?(?:#(?:[{SIGNS}?]|{ESCAPED})*)?)?$"
)
"""What `fetch_url` gives back as it is, where the host is good: nothing to decode or to repair."""
DRESSED = r"/\.|[/.][Aa][Mm][Pp]|\?\?|#[!/]"
"""What makes the key of a plain text more than a cut of it: dot segments, marks of AMP, routes."""
TOGETHER = 1 << 14
"""Texts looked at together: so few that what is made of them on the way stays in a cache."""

Flags = np.ndarray[Any, np.dtype[np.bool_]]


class Keys(NamedTuple):
    """Columns of one length; null where the text is no URL."""

    link_id: pa.Array
    url_key: pa.Array
    fetch_url: pa.Array
    """The target, where the text only sends its reader on."""


def of(texts: pa.Array) -> Keys:
    """For every text what `url.fetch_url` and then `canonical.unwrapped` give, its `url_key` and
    its `link_id`; each different text is looked at once."""
    coded = texts.cast(pa.string()).dictionary_encode()
    different = coded.dictionary
    starts = range(0, max(1, len(different)), TOGETHER)
    slices = [_of_different(different.slice(start, TOGETHER)) for start in starts]
    return Keys(
        *(pa.concat_arrays(column).take(coded.indices) for column in zip(*slices, strict=True))
    )


def _of_different(different: pa.Array) -> Keys:
    # With no semicolon left, as PLAIN has it, this was all that there was to decode.
    decoded = pc.replace_substring(different, "&amp;", "&")
    plain = pc.and_not(
        pc.and_(
            pc.match_substring_regex(decoded, PLAIN),
            pc.less_equal(pc.binary_length(different), url.MAX_CHARACTERS),
        ),
        pc.match_substring_regex(decoded, DRESSED),
    ).to_numpy(zero_copy_only=False)
    short, done = _short_way(decoded.filter(pa.array(plain)))
    plain[plain] = done
    ways = short, _long_way(different.filter(pa.array(~plain)).to_pylist())
    places = np.argsort(np.concatenate([np.flatnonzero(plain), np.flatnonzero(~plain)]))
    order = pa.array(places)
    return Keys(*(pa.concat_arrays(column).take(order) for column in zip(*ways, strict=True)))


def _long_way(texts: Sequence[str]) -> Keys:
    asked = [url.fetch_url(text) for text in texts]
    targets = [canonical.unwrapped(one) if one else None for one in asked]
    found = [canonical.url_key(one) if one else None for one in targets]
    ids = [canonical.link_id(key) if key else None for key in found]
    return Keys(pa.array(ids, ID), pa.array(found, pa.string()), pa.array(targets, pa.string()))


class _Host(NamedTuple):
    """What the short way needs of a host."""

    is_plain: bool
    sends_on: tuple[str, ...]
    """Beginnings of paths, without their slash, that may be another page's wrapper."""
    bare: str
    domain_id: bytes


@functools.lru_cache(maxsize=url.HOSTS)
def _host(name: str) -> _Host:
    if not url.is_plain_host(name):
        return _Host(False, (), "", b"")
    bare = canonical.key_host(name)
    wrapping = canonical.wrapping(name) + canonical.wrapping(bare)
    begins = tuple(begin[1:] for begin, _ in wrapping)
    return _Host(True, begins, bare, canonical.domain_id(bare))


def _short_way(texts: pa.Array) -> tuple[Keys, Flags]:
    """The columns of those texts whose host is plain too, and which these are."""
    parts = pc.split_pattern(texts, "/", max_splits=3)
    names = parts.values.take(pa.array(parts.offsets.to_numpy()[:-1] + 2)).dictionary_encode()
    codes, rest = names.indices.to_numpy(), _part(parts, 3)
    hosts = [_host(name) for name in names.dictionary.to_pylist()]
    good = np.array([one.is_plain for one in hosts], bool)[codes]
    sending = np.array([bool(one.sends_on) for one in hosts], bool)[codes]
    few = zip(rest.filter(pa.array(sending)).to_pylist(), codes[sending], strict=True)
    good[sending] &= np.array(
        [not path.startswith(hosts[code].sends_on) for path, code in few], bool
    )
    mask = pa.array(good)
    return _joined(texts.filter(mask), codes[good].tolist(), hosts, rest.filter(mask)), good


def _joined(texts: pa.Array, codes: Sequence[int], hosts: Sequence[_Host], rest: pa.Array) -> Keys:
    """The columns of texts of plain hosts, given what follows the host's slash."""
    sent = pc.list_element(pc.split_pattern(rest, "#", max_splits=1), 0)
    pages = pc.split_pattern(sent, "?", max_splits=1)
    path = pc.ascii_rtrim(pc.list_element(pages, 0), characters="/")
    selecting = [
        query and canonical.selecting(query.split("&"), hosts[code].bare)
        for query, code in zip(_part(pages, 1).to_pylist(), codes, strict=True)
    ]
    found = pc.binary_join_element_wise(
        "http://",
        pa.array([one.bare for one in hosts], pa.string()).take(pa.array(codes, pa.int32())),
        pc.if_else(pc.equal(path, ""), "", "/"),
        path,
        pa.array(selecting, pa.string()),
        "",
    )
    last = canonical.page_ids(found.cast(pa.binary()).to_pylist())
    ids = b"".join([hosts[code].domain_id + one for code, one in zip(codes, last, strict=True)])
    links = pa.FixedSizeBinaryArray.from_buffers(ID, len(found), [None, pa.py_buffer(ids)])
    return Keys(links, found, texts)


def _part(parts: pa.Array, number: int) -> pa.Array:
    """The part of this number of every row; "" where there are fewer."""
    offsets = parts.offsets.to_numpy()
    places = offsets[:-1] + number
    missing = places >= offsets[1:]
    return parts.values.take(pa.array(places, mask=missing)).fill_null("")
