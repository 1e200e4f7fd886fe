"""What a site says of the use of its pages for AI, and whether it forbids ours, which is training.

Each statement becomes one of `WORDS`, a closed list in lower case that says where it stood; the
permitting ones are kept, too. What is malformed says nothing. Where two statements disagree the
stricter counts: a word that forbids cannot be undone by another.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from crawl import metas, patterns, preferences, url
from crawl.config import Signal
from crawl.warc import Headers

ROBOTS_WORDS: Mapping[str, Signal | None] = {
    "all": None,
    "index": None,
    "noai": "noai",
    "noimageai": None,
    "noindex": "noindex",
    "none": "noindex",
}
"""What X-Robots-Tag and meta elements can say that bears on use, with the kind that forbids ours.
`noimageai` is of pictures, which nothing here reads."""

# A colon follows these, too, and they are no crawler's name.
VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
VALUE = re.compile(r"[\w-]+\s*:\s*[^\s,;]*")
CRAWLER = re.compile(r"[*\w-]+(?:/[\w.]*)?")

TDM = "tdm-reservation"
TDM_FILE = "/.well-known/tdmrep.json"
TDM_BYTES = 500 * 1024
"""Of a decoded tdmrep.json. One that is longer cannot be read, and so says nothing."""

_WORDS: dict[str, Signal | None] = {
    **{
        place + word: cast("Signal | None", preferences.FORBIDDING.get(word))
        for word in preferences.WORDS
        for place in ("", "header ")
    },
    **{
        f"{place}: {word}": kind
        for word, kind in ROBOTS_WORDS.items()
        for place in ("x-robots-tag", "meta")
    },
    **{
        f"{place}: {bit}": "tdm" if bit else None
        for place in (TDM, f"meta {TDM}", "tdmrep.json")
        for bit in (0, 1)
    },
}
WORDS = frozenset(_WORDS)
"""All there are. A preference with no place before it is a line of robots.txt."""
FORBIDDING: Mapping[str, Signal] = {word: kind for word, kind in _WORDS.items() if kind}
"""The words that forbid our use, with the kind of `crawl.obey` by which they count."""


def refused(signals: Iterable[str], obey: Sequence[Signal]) -> str | None:
    """The first signal that forbids our use, of the kinds that `crawl.obey` names."""
    return next((word for word in signals if FORBIDDING.get(word) in obey), None)


def joined(signals: Iterable[str]) -> str | None:
    """The text of a page's column `ai_signals`: sorted, each once; None where nothing is said."""
    return "; ".join(sorted(set(signals))) or None


def split(text: str | None) -> tuple[str, ...]:
    """The signals that a column's text holds."""
    return tuple(text.split("; ")) if text else ()


def of_headers(headers: Headers, token: str) -> tuple[str, ...]:
    """What the headers of an answer say: X-Robots-Tag, tdm-reservation, Content-Usage and
    Content-Signal. `token`: our name; what is addressed to other crawlers is not ours."""
    said: list[str] = []
    for name, value in headers:
        lower = name.lower()
        if lower == "x-robots-tag":
            said.extend(_x_robots_tag(value.lower(), token.lower()))
        elif lower == TDM:
            said.extend(f"{TDM}: {bit}" for bit in _bits(value))
        elif lower in preferences.KNOWN:
            said.extend(f"header {word}" for word in preferences.words(lower, value))
    return tuple(dict.fromkeys(said))


def _x_robots_tag(value: str, token: str) -> Iterable[str]:
    ours = True
    for part in value.split(","):
        name, colon, rest = (text.strip() for text in part.partition(":"))
        if name in VALUED:
            continue
        if colon and CRAWLER.fullmatch(name):
            ours, name = name.partition("/")[0] in ("*", token), rest
        if ours and name in ROBOTS_WORDS:
            yield f"x-robots-tag: {name}"


def _bits(value: str) -> list[str]:
    # a header that was sent twice may arrive as one, `1, 1`
    return [bit for bit in map(str.strip, value.split(",")) if bit in ("0", "1")]


def of_html(first: metas.First, token: str) -> tuple[str, ...]:
    """What the meta elements in the head of a page say: `robots`, one of our own name, and
    `tdm-reservation`. `first` gives the first bytes, at most so many, of the decoded page."""
    said: list[str] = []
    for name, content in metas.metas(first, ("robots", TDM, token.lower())):
        if name == TDM:
            said.extend(f"meta {TDM}: {bit}" for bit in _bits(content))
        else:
            found = re.split(r"[\s,;/]+", VALUE.sub(" ", content))
            said.extend(f"meta: {word}" for word in found if word in ROBOTS_WORDS)
    return tuple(dict.fromkeys(said))


@dataclass(frozen=True, slots=True)
class Reservations:
    """The rules of a tdmrep.json, in their order. `whole`: there are too many to follow, so that
    all is taken for reserved."""

    rules: tuple[tuple[patterns.Pattern, int], ...] = ()
    whole: bool = False

    def signals(self, fetch_url: str) -> tuple[str, ...]:
        """What it says of a URL. The first rule that matches decides, says TDMRep."""
        if self.whole:
            return ("tdmrep.json: 1",)
        target = patterns.target(fetch_url) if self.rules else ""
        for pattern, bit in self.rules:
            if pattern.matches(target):
                return (f"tdmrep.json: {bit}",)
        return ()


def tdm_location(fetch_url: str) -> str:
    """Where the tdmrep.json stands that speaks for a URL."""
    return url.origin(fetch_url) + TDM_FILE


def of_tdmrep(body: bytes) -> Reservations:
    """The reservations of a tdmrep.json, from the decoded body of a success. What is no array of
    rules reserves nothing; a rule without a location, or with another value than 0 and 1, is none.
    """
    try:
        rules = json.loads(body[: TDM_BYTES + 1])
    except (ValueError, RecursionError):
        return Reservations()
    kept = [rule for rule in map(_rule, rules) if rule] if isinstance(rules, list) else []
    whole = sum(pattern.wildcards for pattern, _ in kept) > patterns.MAX_WILDCARDS
    return Reservations(() if whole else tuple(kept), whole)


def _rule(rule: Any) -> tuple[patterns.Pattern, int] | None:
    if not isinstance(rule, dict):
        return None
    location = rule.get("location")
    # the specification calls the value a boolean: some write it so, or as text
    bit = {"0": 0, "1": 1, "False": 0, "True": 1}.get(str(rule.get(TDM)))
    if not isinstance(location, str) or bit is None:
        return None
    octets = location.encode("utf-8", "surrogatepass").decode("latin-1")
    return patterns.pattern(octets), bit
