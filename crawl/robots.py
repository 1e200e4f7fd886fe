"""What a robots.txt allows (RFC 9309): from the answer to a request for it to a verdict on a URL.

Only the body of a success is ever parsed. Protego matches paths; who is meant is decided here, by
the exact product token, because it takes `web` for a prefix of `webtext`.
"""

import re
from dataclasses import dataclass

from protego import Protego

from crawl import url

MAX_BYTES = 500 * 1024
"""Parsed at least, says section 2.5; more is not, nor is more asked for."""
MAX_REDIRECTS = 5
"""Followed at least, says section 2.3.1.2; beyond them the file counts as unavailable."""
CACHE_S = 24 * 3600.0
"""Not used for longer, says section 2.4."""

MAX_WILDCARDS = 5000
"""Lines with a `*`. Each is matched against each URL: tens of thousands stop all other hosts."""

# Without its colon, too: Protego takes it so.
AGENT_LINE = re.compile(
    r"^[^\S\n]*user[- \t]?agent(?:[^\S\n]*:|[^\S\n]+)[^\S\n]*([^#\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
TOKEN = re.compile(r"[A-Za-z_-]+")
NOBODY = "0"  # no product token can begin so


@dataclass(frozen=True)
class Rules:
    """What one origin allows one product token. `unreachable`: the file could not be had."""

    token: str
    parsed: Protego | None = None
    unreachable: bool = False

    def allows(self, fetch_url: str) -> bool:
        """Whether the URL may be asked for."""
        if self.unreachable:
            return False
        if self.parsed is None:
            return True
        return bool(self.parsed.can_fetch(url.without_fragment(fetch_url), self.token))

    def crawl_delay_s(self) -> float | None:
        """Seconds between two requests that the file asks for; None where it does not."""
        delay = self.parsed.crawl_delay(self.token) if self.parsed else None
        return float(delay) if delay is not None else None


def location(fetch_url: str) -> str:
    """Where the robots.txt stands that speaks for a URL (section 2.3)."""
    return url.origin(fetch_url) + "/robots.txt"


def verdict(status: int | None, body: bytes, token: str) -> Rules:
    """The rules that follow from an answer; `status` is None where there was none in time.

    2xx: what the file says; nothing is allowed where to follow it would take too long. 3xx, after
    too many redirects, and 4xx: the file is unavailable, all is allowed (2.3.1.3). 429, 5xx and no
    answer: unreachable, nothing is allowed (2.3.1.4).
    """
    if status is not None and 200 <= status < 300:
        text = _text(body)
        if sum("*" in line for line in text.split("\n")) > MAX_WILDCARDS:
            return Rules(token, unreachable=True)
        return Rules(token, Protego.parse(_for_token(text, token)))
    if status is not None and 300 <= status < 500 and status != 429:
        return Rules(token)
    return Rules(token, unreachable=True)


def _text(body: bytes) -> str:
    if len(body) > MAX_BYTES:
        # at a line's end: half a `Disallow: /private` would disallow everything
        body = body[: max(body.rfind(b"\n", 0, MAX_BYTES), body.rfind(b"\r", 0, MAX_BYTES)) + 1]
    # Lines as Protego cuts them: at a lone CR, and at Unicode's line ends, too.
    return "\n".join(body.decode("utf-8-sig", "replace").splitlines())


def _for_token(text: str, token: str) -> str:
    def named(found: re.Match[str]) -> str:
        value = found.group(1).strip()
        product = TOKEN.match(value)
        if value == "*":
            agent = "*"
        elif product and product.group().lower() == token.lower():
            agent = token
        else:
            agent = NOBODY
        return f"User-agent: {agent} "

    return AGENT_LINE.sub(named, text)
