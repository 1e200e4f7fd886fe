"""Preferences of use, `key=value`: Content-Signal and Content-Usage, as robots.txt and headers say.

A preference is a word, `content-signal: ai-train=no`; those that are known are a closed list, and
what is not in it, or is malformed, says nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crawl import patterns

YES_OR_NO = ("no", "yes")
SIGNALS: Mapping[str, tuple[str, ...]] = {
    "ai-input": YES_OR_NO,
    "ai-train": YES_OR_NO,
    "search": YES_OR_NO,
    "use": ("full", "immediate", "reference"),
}
"""What a Content-Signal can say (contentsignals.org, and `use` of Cloudflare's managed files)."""

TRAINING = ("ai", "all", "bots", "genai", "tdm", "train-ai", "train-genai")
"""Labels of Content-Usage that are our use or include it: `train-ai` in today's
draft-ietf-aipref-vocab, the others in its drafts 01 to 04, which sites may have followed."""
LABELS = (*TRAINING, "ai-output", "ai-use", "inference", "search")

KNOWN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "content-signal": SIGNALS,
    "content-usage": dict.fromkeys(LABELS, ("n", "y")),
}
WORDS = frozenset(
    f"{kind}: {key}={value}"
    for kind, keys in KNOWN.items()
    for key, values in keys.items()
    for value in values
)
FORBIDDING: Mapping[str, str] = {
    "content-signal: ai-train=no": "content-signal",
    **{f"content-usage: {label}=n": "content-usage" for label in TRAINING},
}
"""The words that forbid training, with what they are of."""

KEY = r"[a-z*][a-z0-9_.*-]*"
BARE = (
    r"(?:[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*|\"(?:[ !#-\[\]-~]|\\[\"\\])*+\"|\?[01]"
    r"|:[A-Za-z0-9+/=]*+:|@?-?[0-9]{1,15}(?:\.[0-9]{1,3})?)"
)
PARAMETERS = rf"(?:; *{KEY}(?:={BARE})?)*+"
MEMBER = re.compile(rf"({KEY})(?:=({BARE}|\([^()]*+\)))?{PARAMETERS}[ \t]*(,[ \t]*|$)")
PATH = re.compile(r"(/\S*)(?:[ \t]+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of robots.txt: words by the use that they are of; without a pattern, of all paths."""

    pattern: patterns.Pattern | None
    words: tuple[tuple[str, str], ...]


def words(kind: str, text: str) -> tuple[str, ...]:
    """The words of a kind (`content-signal`, `content-usage`) that a value holds."""
    pairs = _dictionary(text) if kind == "content-usage" else _pairs(text)
    found = (f"{kind}: {key}={value}" for key, value in pairs)
    return tuple(word for word in found if word in WORDS)


def line(kind: str, value: str) -> Line | None:
    """A line of robots.txt by the value after its colon, in which a path may come first
    (draft-ietf-aipref-attach, section 3); None where it says nothing."""
    scoped = PATH.fullmatch(value)
    found = words(kind, (scoped.group(2) or "") if scoped else value)
    if not found:
        return None
    pattern = patterns.pattern(scoped.group(1)) if scoped else None
    return Line(pattern, tuple((word.rpartition("=")[0], word) for word in found))


def speaking(lines: Iterable[Line], target: str) -> tuple[str, ...]:
    """What lines of robots.txt say of a path (`patterns.target`): of each use what the line says
    that describes the path most closely, and all of them where several do so equally. A line that
    is silent on a use leaves standing what a wider one says of it."""
    best: dict[str, tuple[int, list[str]]] = {}
    for found in lines:
        if found.pattern and not found.pattern.matches(target):
            continue
        octets = found.pattern.octets if found.pattern else 0
        for use, word in found.words:
            most, said = best.get(use, (-1, []))
            if octets > most:
                best[use] = (octets, [word])
            elif octets == most:
                said.append(word)
    return tuple(dict.fromkeys(word for _, said in best.values() for word in said))


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = (part.partition("=") for part in text.lower().split(","))
    return [(key.strip(), value.strip()) for key, _, value in parts]


def _dictionary(text: str) -> list[tuple[str, str]]:
    """A dictionary of structured fields (RFC 9651, 4.2.2): the last of a key counts; none of it
    does where any of it is malformed."""
    text, at = text.strip(" \t"), 0
    members: dict[str, str] = {}
    comma = ""
    while at < len(text):
        found = MEMBER.match(text, at)
        if not found:
            return []
        key, value, comma = found.groups(default="")
        members[key] = value
        at = found.end()
    return [] if comma else list(members.items())
