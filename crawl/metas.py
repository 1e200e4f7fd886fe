"""The meta elements in the head of a page, found without parsing the page.

A scanner that passes over what only looks like an element (comments, scripts, styles, titles) and
ends where the head does. Its time is linear in the bytes it is given, whatever they are.
"""

import re
from collections.abc import Callable, Iterator
from html import unescape

START_BYTES = 16 * 1024
HEAD_BYTES = 256 * 1024
"""Of a decoded page, in which its head is looked for."""

# For pages in lower case.
MARK = re.compile(
    rb"<(?:(!--)|(script|style|title|textarea|template|xmp|iframe|noframes|noembed)(?=[\s/>])"
    rb"|(meta)(?=[\s/])|(?:/head|body)(?=[\s/>]))"
)
COMMENT_END = re.compile(rb"--!?>")
REST_OF_TAG = re.compile(rb"((?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)>")
ATTRIBUTE = re.compile(rb"([^\s\"'<>/=]+)(?:\s*=\s*(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'<>]+)))?")


def head(first: Callable[[int], bytes]) -> bytes:
    """As much of a page as its head needs, at most `HEAD_BYTES`. `first` gives the first bytes, at
    most so many, of the decoded body."""
    most = START_BYTES
    while True:
        found = first(most)
        if len(found) < most or most >= HEAD_BYTES or _holds_head(octets(found)):
            return found
        most *= 4


def octets(page: str | bytes) -> bytes:
    """A page in which ASCII is one byte a character."""
    if isinstance(page, str):
        return page.encode("utf-8", "replace")
    if page.startswith((b"\xff\xfe", b"\xfe\xff")):
        return page.decode("utf-16", "replace").encode("utf-8", "replace")
    return page


def metas(page: bytes) -> Iterator[tuple[str, str]]:
    """Name and content of the meta elements in a page's head, in lower case, entities decoded."""
    lower = page.lower()
    for start, end in _metas(lower):
        attributes: dict[bytes, str] = {}
        for name, *values in ATTRIBUTE.findall(lower, start, end):
            value = b"".join(values).decode("latin-1")
            attributes.setdefault(name, unescape(value) if "&" in value else value)
        yield attributes.get(b"name", "").strip(), attributes.get(b"content", "").strip()


def _holds_head(page: bytes) -> bool:
    lower = page.lower()
    if b"</head" not in lower and b"<body" not in lower:
        return False
    return (-1, -1) in _places(lower)


def _metas(lower: bytes) -> Iterator[tuple[int, int]]:
    return (place for place in _places(lower) if place != (-1, -1))


def _places(lower: bytes) -> Iterator[tuple[int, int]]:
    """Where the attributes of each meta element begin and end; last, where the head ends within
    the page, a pair of -1."""
    at = 0
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
            yield -1, -1
            return
        elif rest := REST_OF_TAG.match(lower, at):
            yield at, rest.end() - 1
            at = rest.end()
        else:
            return
