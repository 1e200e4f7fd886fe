"""The meta elements in the head of a page, found without parsing the page.

A scanner that passes over what only looks like an element (comments, scripts, styles, titles) and
ends where the head does. Its time is linear in the bytes it is given, whatever they are.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import unescape

START_BYTES = 16 * 1024
HEAD_BYTES = 256 * 1024
"""Of a decoded page, in which its head is looked for."""
TAG_BYTES = 8 * 1024
"""Of one element, in which its attributes are looked for."""

RAW = (b"script", b"style", b"title", b"textarea", b"template", b"xmp", b"iframe", b"noframes",
       b"noembed")  # fmt: skip
HIDING = ((b"<!--", b"-->"), *((b"<" + name, b"</" + name) for name in RAW))
# For pages in lower case.
MARK = re.compile(
    rb"<(?:(!--)|(" + b"|".join(RAW) + rb")(?=[\s/>])"
    rb"|(meta)(?=[\s/])|(?:/head|body)(?=[\s/>]))"
)
ENDS = (b"</head", b"<body")
HEAD_ENDS = (-1, -1)
COMMENT_END = re.compile(rb"--!?>")
REST_OF_TAG = re.compile(rb"((?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)>")
ATTRIBUTE = re.compile(rb"([^\s\"'<>/=]+)(?:\s*=\s*(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'<>]+)))?")


def head(first: Callable[[int], bytes]) -> bytes:
    """The head of a page in lower case, or as much as it takes to hold it, at most `HEAD_BYTES`.
    `first` gives the first bytes, at most so many, of the decoded body."""
    lower, most = b"", START_BYTES
    while True:
        found = first(most)
        page = octets(found)
        seen = max(0, len(lower) - len(b"</head"))
        lower = lower[:seen] + page[seen:].lower()
        if (end := _end(lower, seen)) is not None:
            return lower[:end]
        if len(found) < most or most >= HEAD_BYTES:
            return lower
        most *= 4


def octets(page: str | bytes) -> bytes:
    """A page in which ASCII is one byte a character."""
    if isinstance(page, str):
        return page.encode("utf-8", "replace")
    if page.startswith((b"\xff\xfe", b"\xfe\xff")):
        return page.decode("utf-16", "replace").encode("utf-8", "replace")
    return page


def metas(lower: bytes, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and content of the meta elements of these names in a head in lower case, entities
    decoded."""
    needles = [name.encode() for name in names if name]
    hits = sorted(hit for needle in needles for hit in _hits(lower, needle))
    if not hits:
        return
    # What is before the first of these words is not worth reading, unless it hides the word.
    first = max(0, lower.rfind(b"<meta", 0, hits[0]))
    ended = any(lower.find(mark, 0, first) >= 0 for mark in ENDS)
    for start, end in _places(lower, 0 if ended or _hidden(lower, first, HIDING) else first):
        if (at := bisect_left(hits, start)) == len(hits):
            return
        if hits[at] >= end:
            continue
        attributes: dict[bytes, str] = {}
        for key, *values in ATTRIBUTE.findall(lower, start, min(end, start + TAG_BYTES)):
            value = b"".join(values).decode("latin-1")
            attributes.setdefault(key, unescape(value) if "&" in value else value)
        name = attributes.get(b"name", "").strip()
        if name and name in names:
            yield name, attributes.get(b"content", "").strip()


def _hits(lower: bytes, needle: bytes) -> Iterator[int]:
    at = -1
    while (at := lower.find(needle, at + 1)) >= 0:
        yield at


def _end(lower: bytes, seen: int) -> int | None:
    """Where the head has ended, or later; None where it has not, as was known to `seen`."""
    end = next((place for mark in ENDS if (place := lower.find(mark, seen)) >= 0), None)
    if end is None:
        return None
    # Of comments and scripts this happens. Only then it is worth reading all that is before.
    if not _hidden(lower, end, HIDING[:2]):
        return end + len(b"</head>")
    return len(lower) if HEAD_ENDS in _places(lower) else None


def _hidden(lower: bytes, place: int, by: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether what stands at a place may be within something that is not read as markup."""
    for opening, closing in by:
        at = lower.find(opening, 0, place)
        while at >= 0:
            if (end := lower.find(closing, at, place)) < 0:
                return True
            at = lower.find(opening, end, place)
    return False


def _places(lower: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """Where the attributes of each meta element from `at` on begin and end; last, where the head
    ends within the page, `HEAD_ENDS`."""
    while found := MARK.search(lower, at):
        comment, raw, meta = found.groups()
        at = found.end()
        if comment:
            end = COMMENT_END.search(lower, at - 2)  # `<!-->` is a whole one
            at = end.end() if end else len(lower)
        elif raw:
            closing = lower.find(b"</" + raw, at)
            at = closing + len(raw) + 2 if closing >= 0 else len(lower)
        elif not meta:
            yield HEAD_ENDS
            return
        elif rest := REST_OF_TAG.match(lower, at):
            yield at, rest.end() - 1
            at = rest.end()
        else:
            return
