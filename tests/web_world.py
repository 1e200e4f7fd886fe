"""A web of thousands of hosts, well and badly behaved, of which nothing lies anywhere: what a path
is answered with follows from (seed, host, path) alone.

Rule: whoever knows the seed knows what each link must end as (`expected`), what may be asked
(`forbids`), how often (`most`) and how far apart (`crawl_delay_s`), so that any process can judge a
crawl by the server's log and its rows. Each host has a registrable domain of its own; `www.` before
its name is another host of that domain.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests import web_pages, web_robots
from tests.web_answers import response
from tests.web_log import OF_ROBOTS, Hit, ListLog, Log
from tests.web_pages import Place
from tests.web_server import Answer, Ready

WORDS = re.findall(
    r"\w+",
    "the of and to in that it is was for on as with his he be at by had not are but from or have an"
    " they which one you were her all she there would their we him been has when who will more no"
    " if out so said what up its about into than them can only other new some could time these two",
)
TDM = "/.well-known/tdmrep.json"
ROUNDS = 6
"""In each of which what speaks for a whole host may be asked for anew."""
NOT_HERE = response(404, b"not here")


@dataclass
class World:
    """What is asked for, and the state that there must be: how often each flaky thing was."""

    seed: int = 0
    hosts: int = 10_000
    max_pages: int = 40
    """Of one host. Half of them have at most three."""
    robots: Mapping[str, float] = field(default_factory=lambda: web_robots.WEIGHTS)
    """Kinds of hosts, by what their robots.txt does, and how frequent each is."""
    pages: Mapping[str, float] = field(default_factory=lambda: web_pages.WEIGHTS)
    tls: Mapping[str, float] = field(default_factory=lambda: {"none": 1.0})
    """Kinds of certificates (`web_tls.KINDS`), and `none`: hosts without TLS."""
    latency_s: float = 0.01
    """Of an answer, in the mean: from a tenth to ten times so long, the same for all of a host."""
    crawl_delay_s: float = 0.3
    """What hosts ask for that ask for a Crawl-delay."""
    token: str = "webtext"
    """The product token of whom some robots.txt files speak."""
    log: Log = field(default_factory=ListLog)
    asked: dict[tuple[str, str], int] = field(default_factory=dict)

    # What there is

    def host(self, number: int) -> str:
        """The name of a host."""
        return f"h{number:05}.test"

    def count(self, number: int) -> int:
        """How many links lead to a host: few to most of them, many to a few (Zipf)."""
        return min(self.max_pages, int(1 / max(1e-9, 1 - self.draw(number, "count")) ** 0.8))

    def path(self, number: int, page: int) -> str:
        """The path of a host's page. One in eight lies where some may not go."""
        private = self.draw(number, f"private{page}") < 1 / 8
        return f"/{'private' if private else 'p'}/{page}"

    def url(self, number: int, page: int) -> str:
        """The address of a host's page."""
        scheme = "http" if self.tls_of(number) == "none" else "https"
        return f"{scheme}://{self.host(number)}{self.path(number, page)}"

    def urls(self) -> Iterator[str]:
        """All links, host by host."""
        for number in range(self.hosts):
            for page in range(self.count(number)):
                yield self.url(number, page)

    def robots_of(self, number: int) -> str:
        """What kind of host it is, by its robots.txt."""
        return chosen(self.robots, self.draw(number, "robots"))

    def tls_of(self, number: int) -> str:
        """What kind of certificate a host has."""
        return chosen(self.tls, self.draw(number, "tls"))

    def page_of(self, number: int, path: str) -> str:
        """What kind of page stands at a path."""
        return chosen(self.pages, self.draw(number, path))

    def text(self, number: int, path: str) -> str:
        """A page's own words: some hundreds, never those of another page."""
        stream = hashlib.shake_128(f"{self.seed}/{number}{path}".encode()).digest(512)
        words = [WORDS[byte % len(WORDS)] for byte in stream[: 100 + stream[0]]]
        return f"Page {path} of host {number}: {' '.join(words)}."

    # What must become of it

    def expected(self, url: str) -> str:
        """The outcome (`PageOutcome`) that a link must end with, whoever crawls."""
        number, path = self.place(url)
        if self.tls_of(number) not in ("none", "good"):
            return "tls_error"
        robots = web_robots.KINDS[self.robots_of(number)]
        if robots.outcome != "ok":
            return robots.outcome
        if self.forbids(self.host(number), path):
            return "robots_disallowed"
        kind = self.page_of(number, path)
        if kind == "offsite":  # the host it sends to has a robots.txt, too
            return web_robots.KINDS[self.robots_of((number + 1) % self.hosts)].outcome
        return web_pages.KINDS[kind].outcome

    def forbids(self, host: str, path: str) -> bool:
        """Whether a request is one that the host's robots.txt forbids, or that it kept back."""
        number = self.number(host)
        if number is None or path.startswith(OF_ROBOTS):
            return False
        robots = web_robots.KINDS[self.robots_of(number)]
        if robots.outcome in ("robots_disallowed", "robots_unreachable"):
            return True
        return robots.private and path.startswith("/private/")

    def most(self, host: str, path: str, retries: int = 1) -> int:
        """How often a page may be asked for: again only where that may help."""
        number = self.number(host)
        if path == TDM:
            return ROUNDS
        if path.startswith(web_pages.OF_ANOTHER):
            return self._led_to(path)
        if number is None or not path.startswith(("/p/", "/private/")):
            return 1
        page = web_pages.KINDS[self.page_of(number, path)]
        return page.asks + retries * page.passing

    def _led_to(self, path: str) -> int:
        """How many links of another host lead to a page: as often it is asked for."""
        other = self.number(path.removeprefix(web_pages.OF_ANOTHER))
        if other is None:
            return 1
        paths = (self.path(other, page) for page in range(self.count(other)))
        return sum(self.page_of(other, path) == "offsite" for path in paths)

    def delay_of(self, host: str) -> float:
        """The Crawl-delay that a host asks for, or who speaks for it, in seconds; 0: none."""
        number = self.number(host)
        asks = number is not None and self.robots_of(number) in ("delay", "offsite")
        return self.crawl_delay_s if asks else 0.0

    # What is answered

    def find(self, hit: Hit) -> Answer:
        """What a request is answered with: after the host's latency, or as the page behaves."""
        number = self.number(hit.host)
        if number is None:
            return NOT_HERE
        place = Place(self, number, hit.host, hit.path, self._times(hit))
        robots = web_robots.KINDS[self.robots_of(number)]
        if hit.path == web_robots.OF_OTHERS:
            answer = web_robots.KINDS["delay"].answer(place)
        elif hit.path.startswith(OF_ROBOTS):
            answer = robots.answer(place)
        elif hit.path == TDM and robots.tdm:
            answer = response(200, robots.tdm, {"Content-Type": "application/json"})
        else:
            answer = web_pages.answer(place)
        if isinstance(answer, bytes) and len(answer) < 1 << 20:
            keep = answer.startswith(b"HTTP/1.1") and self.draw(number, "keep") < 0.5
            return Ready(answer, self.latency_of(number), keep and is_framed(answer))
        return answer

    def latency_of(self, number: int) -> float:
        """Seconds that a host takes to answer."""
        return self.latency_s * 10 ** (2 * self.draw(number, "latency") - 1)

    def draw(self, number: int, what: str) -> float:
        """A number in [0, 1) that belongs to a host and a word."""
        text = f"{self.seed}/{number}/{what}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) / 2**48

    def number(self, host: str) -> int | None:
        """The number of a host; None of one that there is not."""
        name = host.removeprefix("www.").removesuffix(".test")
        digits = name.removeprefix("h")
        there = name.startswith("h") and digits.isdigit() and int(digits) < self.hosts
        return int(digits) if there else None

    def place(self, url: str) -> tuple[int, str]:
        """Host and path of one of this world's addresses. ValueError of another's."""
        host, _, path = url.partition("://")[2].partition("/")
        number = self.number(host)
        if number is None:
            raise ValueError(f"{url}: is no address of this world")
        return number, "/" + path

    def _times(self, hit: Hit) -> int:
        key = hit.host, hit.path
        self.asked[key] = self.asked.get(key, 0) + 1
        return self.asked[key]


def is_framed(answer: bytes) -> bool:
    """Whether an answer says itself where it ends, and ends there."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = b"\r\ncontent-length: %d" % len(body)
    return head.lower().count(b"content-length") == 1 and head.lower().endswith(length)


def chosen(weights: Mapping[str, float], draw: float) -> str:
    """One of the keys, by how much each weighs."""
    left = draw * sum(weights.values())
    for kind, weight in weights.items():
        left -= weight
        if left < 0:
            return kind
    return kind
