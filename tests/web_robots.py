"""What the robots.txt files of a world do, and what that makes of the pages behind them."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass

from tests import web_faults
from tests.web_answers import redirect, response
from tests.web_pages import Place
from tests.web_server import Answer, Ready

SLOW_S = 0.3
OF_OTHERS = "/robots-of-others.txt"
PLAIN = {"Content-Type": "text/plain"}
PRIVATE = "User-agent: *\nDisallow: /private/\n"


@dataclass(frozen=True)
class Robots:
    """`outcome`: of all pages of the host, where it is not `ok`. `private`: what lies under
    /private/ is forbidden."""

    answer: Callable[[Place], Answer]
    outcome: str = "ok"
    private: bool = False
    tdm: bytes = b""
    """The host's reservation of text and data mining (TDMRep), where there is one."""


def _says(text: str | bytes, status: int = 200, **fields: str) -> Callable[[Place], Answer]:
    body = text if isinstance(text, bytes) else text.encode()
    headers = PLAIN | {name.replace("_", "-"): value for name, value in fields.items()}
    answer = response(status, body, headers)
    return lambda place: answer


def _for_token(text: str) -> Callable[[Place], Answer]:
    return lambda place: response(200, text.format(token=place.world.token).encode(), PLAIN)


def _delay(place: Place) -> Answer:
    return response(200, f"User-agent: *\nCrawl-delay: {place.world.crawl_delay_s}".encode(), PLAIN)


def _flaky(place: Place) -> Answer:
    return response(503) if place.times == 1 else response(200, PRIVATE.encode(), PLAIN)


def _redirected(place: Place) -> Answer:
    if place.path == "/robots.txt":
        return redirect("/robots/elsewhere.txt", 301)
    return response(200, PRIVATE.encode(), PLAIN)


def _loops(place: Place) -> Answer:
    if place.path == "/robots.txt":
        return redirect("/robots/1.txt")
    number = int(place.path.removeprefix("/robots/").removesuffix(".txt"))
    return redirect(f"/robots/{number + 1}.txt")


def _offsite(place: Place) -> Answer:
    """Lies with the next host, in one file for all others."""
    number = (place.number + 1) % place.world.hosts
    return redirect(f"http://{place.world.host(number)}{OF_OTHERS}")


HUGE = PRIVATE + "# and so on\n" * 45_000 + "\nUser-agent: *\nDisallow: /\n"
"""More than 500 KiB, the last lines of which are beyond what is parsed."""

KINDS: dict[str, Robots] = {
    "open": Robots(_says("User-agent: *\nAllow: /\n")),
    "partly": Robots(_says(PRIVATE), private=True),
    "empty": Robots(_says("")),
    "missing": Robots(_says("no such file", 404)),
    "gone": Robots(_says("gone", 410)),
    "unauthorized": Robots(_says("User-agent: *\nDisallow: /", 401)),
    "html": Robots(_says("<html><body>Welcome!</body></html>")),
    "bom": Robots(_says(b"\xef\xbb\xbf" + PRIVATE.encode()), private=True),
    "latin": Robots(_says("# café\n".encode("latin-1") + PRIVATE.encode()), private=True),
    "cr": Robots(_says(PRIVATE.replace("\n", "\r")), private=True),
    "gzip": Robots(
        _says(gzip.compress(PRIVATE.encode(), mtime=0), Content_Encoding="gzip"), private=True
    ),
    "huge": Robots(_says(HUGE), private=True),
    "slow": Robots(lambda place: Ready(response(200, PRIVATE.encode()), SLOW_S), private=True),
    "flaky": Robots(_flaky, private=True),
    "redirected": Robots(_redirected, private=True),
    "loops": Robots(_loops),
    "delay": Robots(_delay),
    "closed": Robots(_says("User-agent: *\nDisallow: /\n"), "robots_disallowed"),
    "closed_to_us": Robots(
        _for_token("User-agent: {token}\nDisallow: /\n\nUser-agent: *\nAllow: /\n"),
        "robots_disallowed",
    ),
    "open_to_us": Robots(
        _for_token("User-agent: *\nDisallow: /\n\nUser-agent: {token}\nAllow: /\n")
    ),
    "error": Robots(_says("User-agent: *\nAllow: /", 503), "robots_unreachable"),
    "busy": Robots(_says("User-agent: *\nAllow: /", 429), "robots_unreachable"),
    "hangs": Robots(lambda place: web_faults.hang, "robots_unreachable"),
    "drips": Robots(lambda place: web_faults.drip_head, "robots_unreachable"),
    "slams": Robots(lambda place: web_faults.slam, "robots_unreachable"),
    "garbage": Robots(lambda place: web_faults.GARBAGE, "robots_unreachable"),
    "endless": Robots(lambda place: web_faults.endless),
    "signal": Robots(
        _says("User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n"), "opted_out"
    ),
    "usage": Robots(_says("User-agent: *\nContent-Usage: train-ai=n\nAllow: /\n"), "opted_out"),
    "tdm": Robots(_says(""), "opted_out", tdm=b'[{"location": "/", "tdm-reservation": 1}]'),
    "offsite": Robots(_offsite),
}

WEIGHTS = {kind: 1.0 for kind in KINDS} | {"open": 40.0, "partly": 20.0, "missing": 20.0}
"""Most hosts are good ones."""
PROPER = {"open": 5.0, "partly": 2.0, "missing": 2.0, "redirected": 1.0, "delay": 1.0, "bom": 1.0}
"""Hosts that can be crawled to the end without much waiting."""
