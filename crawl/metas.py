"""The meta elements in the head of a page, found without parsing the page.

A scanner that passes over what only looks like an element (comments, scripts, styles, titles) and
ends where the head does. It asks for a longer beginning of the page as long as the head goes on,
and goes on where it was. Its time is linear in the bytes it is given, whatever they are.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from html import unescape

START_BYTES = 16 * 1024
HEAD_BYTES = 256 * 1024
"""Of a decoded page, in which its head is looked for."""
TAG_BYTES = 8 * 1024
"""Of one element, in which its attributes are looked for."""
MARK_BYTES = 16
"""No `MARK` is longer."""

RAW = (b"script", b"style", b"title", b"textarea", b"template", b"xmp", b"iframe", b"noframes",
       b"noembed")  # fmt: skip
# For pages in lower case.
MARK = re.compile(
    rb"<(?:(!--)|(" + b"|".join(RAW) + rb")(?=[\s/>])"
    rb"|(meta)(?=[\s/])|(?:/head|body)(?=[\s/>]))"
)
COMMENT_END = re.compile(rb"--!?>")
# A quote counts behind `=` alone, and one that is never closed closes no element.
REST_OF_TAG = re.compile(rb"(?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+'|(?![\"'])))*+>")
ATTRIBUTE = re.compile(rb"([^\s\"'<>/=]+)(?:\s*=\s*(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'<>]+)))?")

First = Callable[[int], bytes]
"""Gives the first bytes, at most so many, of a decoded page."""


def metas(first: First, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and content of the meta elements of these names in the head of a page, all in lower
    case, entities decoded. No more of the page is asked for than it takes to hold the head, at most
    `HEAD_BYTES`."""
    needles = [name.encode() for name in names if name]
    lower, most, at = b"", START_BYTES, 0
    while True:
        found = first(most)
        page = octets(found)
        # of UTF-16 the last character may have been half a one
        seen = max(0, len(lower) - MARK_BYTES)
        lower = lower[:seen] + page[seen:].lower()
        elements, next_ = _elements(lower, at)
        for start, end in elements:
            stop = min(end, start + TAG_BYTES)
            # most elements name none of ours: to look for the name is quicker than to read them
            if any(map(lower[start:stop].__contains__, needles)):
                yield from _named(lower, start, stop, names)
        if next_ is None or len(found) < most or most >= HEAD_BYTES:
            return
        at, most = next_, 2 * most


def octets(page: bytes) -> bytes:
    """A page in which ASCII is one byte a character."""
    if page.startswith((b"\xff\xfe", b"\xfe\xff")):
        return page.decode("utf-16", "replace").encode("utf-8", "replace")
    return page


def _named(lower: bytes, start: int, stop: int, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    attributes: dict[bytes, str] = {}
    for key, *values in ATTRIBUTE.findall(lower, start, stop):
        value = b"".join(values).decode("latin-1")
        attributes.setdefault(key, unescape(value) if "&" in value else value)
    name = attributes.get(b"name", "").strip()
    if name and name in names:
        yield name, attributes.get(b"content", "").strip()


def _elements(lower: bytes, at: int) -> tuple[list[tuple[int, int]], int | None]:
    """Where the attributes of each whole meta element from `at` on begin and end, and where to go
    on when there is more of the page; None where the head has ended."""
    found: list[tuple[int, int]] = []
    while mark := MARK.search(lower, at):
        comment, raw, meta = mark.groups()
        begins, at = mark.span()
        if comment:
            end = COMMENT_END.search(lower, at - 2)  # `<!-->` is a whole one
            at = end.end() if end else -1
        elif raw:
            closing = lower.find(b"</" + raw, at)
            at = closing + len(raw) + 2 if closing >= 0 else -1
        elif not meta:
            return found, None
        elif rest := REST_OF_TAG.match(lower, at):
            found.append((at, rest.end() - 1))
            at = rest.end()
        else:
            at = -1
        if at < 0:
            return found, begins
    return found, max(at, len(lower) - MARK_BYTES)
