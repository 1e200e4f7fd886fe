"""What the embedded web's server gives for one address: an `Answer`; a `Site` is all of them.

Rule: plain frozen data. Nothing is decided while serving, so an outcome never depends on time,
order or count of requests.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Behaviour = Literal["plain", "slow", "hang", "cut", "drop", "reset", "garbage", "endless"]
"""plain; slow: after 0.3 s; hang: never; cut: half the promised body, then closes; drop: closes
without a byte; reset: the same by a TCP reset; garbage: bytes that are no HTTP; endless: a body
that does not stop (the server stops it at 64 MiB)."""

Fate = Literal[
    "text",
    "not_english",
    "too_short",
    "no_text",
    "http_error",
    "robots",
    "not_html",
    "too_large",
    "timeout",
    "broken",
    "unreachable",
    "redirect_loop",
    "offsite",
    "none",
]
"""What a polite crawler and extractor should make of the address; `none` for robots.txt, which is
no page."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of one address, and how they are given."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    fate: Fate
    behaviour: Behaviour = "plain"


@dataclass(frozen=True)
class Site:
    """host -> path with query -> answer. Hosts are names under `.test`; `www.` may be left out or
    added by the client."""

    hosts: Mapping[str, Mapping[str, Answer]]

    def fates(self) -> dict[str, Fate]:
        """Every page's URL (robots.txt is no page) and what should become of it, in a fixed
        order."""
        return {
            f"http://{host}{path}": answer.fate
            for host, paths in self.hosts.items()
            for path, answer in paths.items()
            if answer.fate != "none"
        }


def page(html: str, fate: Fate = "text", behaviour: Behaviour = "plain") -> Answer:
    """A page of HTML in UTF-8."""
    return typed("text/html; charset=utf-8", html.encode(), fate, behaviour)


def typed(kind: str, body: bytes, fate: Fate, behaviour: Behaviour = "plain") -> Answer:
    """A 200 answer of any content type."""
    return Answer(200, (("Content-Type", kind),), body, fate, behaviour)


def zipped(html: str) -> Answer:
    """A page under `Content-Encoding: gzip`, whatever the client accepts."""
    headers = (("Content-Type", "text/html; charset=utf-8"), ("Content-Encoding", "gzip"))
    return Answer(200, headers, gzip.compress(html.encode(), mtime=0), "text")


def failed(status: int) -> Answer:
    """An HTTP error with a page that says so."""
    html = f"<html><head><title>{status}</title></head><body><h1>Sorry: {status}</h1></body></html>"
    return Answer(
        status, (("Content-Type", "text/html; charset=utf-8"),), html.encode(), "http_error"
    )


def moved(target: str, fate: Fate = "text", status: int = 301) -> Answer:
    """A redirect to `target`, a path or a whole URL."""
    return Answer(status, (("Location", target), ("Content-Type", "text/html")), b"", fate)


def robots(text: str, status: int = 200) -> Answer:
    """A robots.txt."""
    return Answer(status, (("Content-Type", "text/plain; charset=utf-8"),), text.encode(), "none")
