"""Patterns of paths, as robots.txt has them (RFC 9309, 2.2.2 and 2.2.3), and what they match.

A pattern and a URL are compared octet by octet, once both are spelled alike: what is not ASCII is
percent-encoded, an escape of a character that a URL can hold is undone. `*` and a `$` at the end
are special in a pattern; written as `%2A` and `%24` they are themselves.
"""

import re
from dataclasses import dataclass

HELD = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!&'()+,;="
)
"""RFC 3986's unreserved and reserved characters, but for `*` and `$`. Reserved ones are equal to
their escapes, since both sides must be encoded before they are compared."""
SPELLED = tuple(chr(octet) if octet in HELD else f"%{octet:02X}" for octet in range(256))

MAX_WILDCARDS = 5000
"""The `*` of one file. Each is looked for in each URL: with many more, one site would stop all."""

PLAIN = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!&'()+,;=]*").fullmatch
OTHER = re.compile(r"%([0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?#\[\]@!&'()+,;=*]")
LITERAL_STAR = re.compile(r"\*")
AFTER_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*([^#]*)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern ready to be matched. `octets`: how closely it describes what it matches."""

    parts: tuple[str, ...]
    anchored: bool
    octets: int

    @property
    def prefix(self) -> str | None:
        """What a path begins with that is matched, where that is all there is to it."""
        return None if self.anchored or len(self.parts) > 1 else self.parts[0]

    @property
    def wildcards(self) -> int:
        """How many `*` it has: what it can cost."""
        return len(self.parts) - 1

    def matches(self, target: str) -> bool:
        """Whether it matches a path, as `target` spells it."""
        first, last = self.parts[0], self.parts[-1]
        if not target.startswith(first):
            return False
        if len(self.parts) == 1:
            return not self.anchored or len(target) == len(first)
        at = len(first)
        for part in self.parts[1:-1]:
            found = target.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        if self.anchored:
            return len(target) - len(last) >= at and target.endswith(last)
        return target.find(last, at) >= 0


def pattern(text: str) -> Pattern:
    """The pattern that a text, one character an octet, stands for. One that begins with something
    else than `/` or `*` matches nothing, as no path begins so."""
    anchored = text.endswith("$")
    spelled = _spelled(text[:-1] if anchored else text)
    parts = spelled.split("*")
    # `a**b` is `a*b`, but counts as it is written
    kept = [parts[0], *(part for part in parts[1:-1] if part), *parts[1:][-1:]]
    return Pattern(tuple(kept), anchored, len(spelled) + anchored)


def target(fetch_url: str) -> str:
    """The path and query of a URL, spelled as patterns are."""
    found = AFTER_AUTHORITY.match(fetch_url)
    path = found.group(1) if found else fetch_url.partition("#")[0]
    if not path.startswith("/"):
        path = "/" + path
    if PLAIN(path):
        return path
    octets = path if path.isascii() else path.encode("utf-8", "surrogatepass").decode("latin-1")
    return LITERAL_STAR.sub("%2A", _spelled(octets))


def resolved(path: str) -> str:
    """A target without its dot segments (RFC 3986, 5.2.4): what many servers take it for."""
    path, mark, query = path.partition("?")
    segments = path.split("/")
    kept: list[str] = []
    for segment in segments[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept) + mark + query


def _spelled(text: str) -> str:
    if PLAIN(text):
        return text
    return OTHER.sub(_octet, text)


def _octet(found: re.Match[str]) -> str:
    escape = found.group(1)
    return SPELLED[int(escape, 16) if escape else ord(found.group())]
