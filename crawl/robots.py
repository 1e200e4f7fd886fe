"""What a robots.txt allows (RFC 9309): from the answers to a request for it to a verdict on a URL.

Only the body of a success is ever parsed. Matching is our own since Protego, which did it, departs
from the RFC and from Google's published cases where it cannot be mended from outside: it measures
patterns by their escaped length, so that `?` weighs as much as three letters; reads `$` both as an
end and as a character; lets an unknown line end a group; loses bytes that are not UTF-8; and takes
`web` for a prefix of `webtext`.
"""

import re
from dataclasses import dataclass, field, replace

from crawl import content, patterns, preferences, url
from crawl.warc import Headers, header

MAX_BYTES = 500 * 1024
"""Parsed at least, says section 2.5; more is not, nor is more asked for."""
CACHE_S = 24 * 3600.0
"""Not used for longer, says section 2.4, unless the file is unreachable."""
MAX_REDIRECTS = 5
"""Followed at least, says section 2.3.1.2; beyond them the file counts as unavailable."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})

MAX_LINE = 8 * 2083 - 1
"""Bytes of a line that are read, as Google does: eight times the longest URL of a browser."""
LONG_LINE = re.compile(rb"([^\n]{%d})[^\n]+" % MAX_LINE)

# Without its colon, too, and with the slips of the pen that Google's parser forgives.
LINE = re.compile(
    rb"\n[ \t\v\f]*(?:(user[- ]?agent)|(allow)|(dis+allow|dis+alow|diasllow|disallaw)"
    rb"|(crawl[- ]delay)|(content-(?:signal|usage)))"
    rb"(?:[ \t]*:|[ \t](?=[ \t]*[^\s:#][^\s#]*[ \t]*(?:[\n#\0]|\Z)))[ \t\v\f]*([^\n#\0]*)",
    re.IGNORECASE,
)
TOKEN = re.compile(r"[A-Za-z_-]+")
SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}")
INDEX = re.compile(r"(.*/)index\.htm[^/]*", re.DOTALL)
BYTE_ORDER_MARK = re.compile(rb"\xef(?:\xbb\xbf?)?")  # or what is left of one
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Rules:
    """What one origin allows one product token. `unreachable`: the file could not be had.

    Patterns stand longest first, and of equal ones that which allows first: the first to match
    decides. `prefixes` are those of `plain`, tried at once.
    """

    token: str
    unreachable: bool = False
    plain: tuple[tuple[str, bool], ...] = ()
    prefixes: tuple[str, ...] = ()
    special: tuple[tuple[patterns.Pattern, bool], ...] = ()
    delay_s: float | None = None
    lines: tuple[preferences.Line, ...] = ()

    def allows(self, fetch_url: str) -> bool:
        """Whether the URL may be asked for."""
        target = patterns.target(fetch_url)
        if target == "/robots.txt":
            return True
        if self.unreachable:
            return False
        # A server may take `/a/../b` for `/b`: then both must be allowed.
        return self._allows(target) and (
            "/." not in target or self._allows(patterns.resolved(target))
        )

    def _allows(self, target: str) -> bool:
        most, allowed = 0, True
        if target.startswith(self.prefixes):
            prefix, allowed = next(rule for rule in self.plain if target.startswith(rule[0]))
            most = len(prefix)
        for pattern, allows in self.special:
            if pattern.octets < most or (pattern.octets == most and allowed):
                break
            if pattern.matches(target):
                return allows
        return allowed

    def crawl_delay_s(self) -> float | None:
        """Seconds between two requests that the file asks for; None where it does not."""
        return self.delay_s

    def signals(self, fetch_url: str) -> tuple[str, ...]:
        """What the Content-Signal and Content-Usage lines say of a URL, as words of
        `crawl/consent.py`."""
        if not self.lines:
            return ()
        return preferences.speaking(self.lines, patterns.target(fetch_url))

    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        patterned = len(self.plain) + 4 * len(self.special) + 6 * len(self.lines)
        return 400 + 150 * patterned + sum(map(len, self.prefixes))


@dataclass(frozen=True)
class Step:
    """A robots.txt on its way: to be asked for at `target`, for the origin that it will speak for,
    wherever redirects lead. `passed`: where they have led already."""

    origin: str
    token: str
    target: str
    passed: tuple[str, ...] = ()


def location(fetch_url: str) -> str:
    """Where the robots.txt stands that speaks for a URL (section 2.3)."""
    return url.origin(fetch_url) + "/robots.txt"


def begin(fetch_url: str, token: str) -> Step:
    """The first step to the rules that speak for a URL."""
    return Step(url.origin(fetch_url), token, location(fetch_url))


def answered(
    step: Step, status: int, headers: Headers, body: bytes, *, truncated: str | None = None
) -> Step | Rules:
    """Where an answer leads: on to the next location, or to the rules.

    `body` has its Transfer-Encoding undone, its Content-Encoding not. `truncated` is WARC's word
    for why it is not all that was sent: `length`, where no more was wanted; of a success, every
    other is an error of the network. A redirect that leads nowhere new, or beyond `MAX_REDIRECTS`,
    ends as an unavailable file; one to what cannot be asked for, or a body that cannot be decoded,
    as an unreachable one: there are rules, and nobody can read them.
    """
    led = header(headers, "location") if status in REDIRECTS else None
    if led:
        target = url.led_to(step.target, led)
        if target is None:
            return failed(step)
        passed = (*step.passed, step.target)
        if target in passed or len(passed) > MAX_REDIRECTS:
            return verdict(status, b"", step.token)
        return replace(step, target=target, passed=passed)
    if not 200 <= status < 300:
        return verdict(status, b"", step.token)
    if truncated not in (None, "length"):
        return failed(step)
    try:
        plain = content.first(body, header(headers, "content-encoding"), MAX_BYTES + 1)
    except content.Undecodable:
        return failed(step)
    return verdict(status, plain, step.token)


def failed(step: Step) -> Rules:
    """The rules where no answer came, or none that could be read: network error, time-out."""
    return verdict(None, b"", step.token)


def verdict(status: int | None, body: bytes, token: str) -> Rules:
    """The rules that follow from an answer; `status` is None where there was none in time.

    2xx: what the file says; nothing is allowed where to follow it would take too long. 3xx that
    leads no further and 4xx: the file is unavailable, all is allowed (2.3.1.3). 429, 5xx, what is
    no final status, and no answer: unreachable, nothing is allowed (2.3.1.4).
    """
    if status is None or status == 429 or not 200 <= status < 500:
        return Rules(token, unreachable=True)
    return _parsed(body, token) if status < 300 else Rules(token)


def _text(body: bytes) -> bytes:
    """The lines that are read, each begun by LF."""
    if body.startswith(UTF_16):
        body = body.decode("utf-16", "replace").encode("utf-8", "replace")
    if len(body) > MAX_BYTES:
        # at a line's end: half a `Disallow: /private` would disallow everything
        body = body[: max(body.rfind(b"\n", 0, MAX_BYTES), body.rfind(b"\r", 0, MAX_BYTES)) + 1]
    if mark := BYTE_ORDER_MARK.match(body):
        body = body[mark.end() :]
    body = b"\n" + body.replace(b"\r", b"\n")
    return LONG_LINE.sub(rb"\1", body) if len(body) > MAX_LINE else body


@dataclass
class _Group:
    """The lines that speak to one crawler, of all its groups."""

    named: bool = False
    paths: list[tuple[str, bool]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    lines: list[preferences.Line] = field(default_factory=list)


def _parsed(body: bytes, token: str) -> Rules:
    ours, general = _Group(), _Group()
    group = _read(_text(body), token.lower(), ours, general)
    return _compiled(group, token)


def _read(text: bytes, token: str, ours: _Group, general: _Group) -> _Group:
    """Shares the lines out; returns the group that speaks to us."""
    # Before any group `allow` and `disallow` are nobody's, but who states a wish there means all.
    meant, begun, closed = [ours, general], False, False
    for found in LINE.finditer(text):
        agent, allow, disallow, delay, kind, octets = found.groups()
        value = octets.decode("latin-1").strip(" \t\v\f")
        if agent:
            if closed or not begun:
                meant, begun, closed = [], True, False
            meant += [group for group in _named(value, token, ours, general) if group not in meant]
        elif allow or disallow:
            closed = True
            for group in meant if begun and value else ():
                group.paths.append((value, bool(allow)))
        elif delay:
            for group in meant if begun and SECONDS.fullmatch(value) else ():
                group.delays.append(float(value))
        elif meant and (line := preferences.line(kind.decode().lower(), value)):
            for group in meant:
                group.lines.append(line)
    return ours if ours.named else general


def _named(value: str, token: str, ours: _Group, general: _Group) -> list[_Group]:
    if value == "*" or value.startswith(("* ", "*\t")):
        return [general]
    product = TOKEN.match(value)
    if product and product.group().lower() == token:
        ours.named = True
        return [ours]
    return []


def _compiled(group: _Group, token: str) -> Rules:
    rules = {(text, allows): patterns.pattern(text) for text, allows in group.paths}
    for text, allows in group.paths:
        # As Google has it: who allows the index of a folder allows the folder.
        if allows and (index := INDEX.fullmatch(text)):
            rules[index.group(1) + "$", True] = patterns.pattern(index.group(1) + "$")
    wildcards = sum(pattern.wildcards for pattern in rules.values())
    wildcards += sum(line.pattern.wildcards for line in group.lines if line.pattern)
    if wildcards > patterns.MAX_WILDCARDS:
        return Rules(token, plain=(("/", False),), prefixes=("/",))
    plain: list[tuple[str, bool]] = []
    special: list[tuple[patterns.Pattern, bool]] = []
    for (_, allows), pattern in rules.items():
        if pattern.prefix is None:
            special.append((pattern, allows))
        else:
            plain.append((pattern.prefix, allows))
    plain.sort(key=lambda rule: (-len(rule[0]), not rule[1]))
    special.sort(key=lambda rule: (-rule[0].octets, not rule[1]))
    return Rules(
        token,
        plain=tuple(plain),
        prefixes=tuple(prefix for prefix, _ in plain),
        special=tuple(special),
        delay_s=max(group.delays, default=None),
        lines=tuple(group.lines),
    )
