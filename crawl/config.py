"""The settings of the crawl: what is read, what is followed, how politely, within which bounds.

A field marked `changes` alters the content of the datasets it names; every other field is recorded
beside them but makes nothing stale.
"""

import datetime
import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from crawl.schema import PageOutcome

Signal = Literal["content-signal", "content-usage", "noai", "noindex", "tdm"]
SIGNALS: tuple[Signal, ...] = ("content-signal", "content-usage", "noai", "noindex", "tdm")
CONTACT = re.compile(r"https?://[^\s)]+|mailto:\S+@\S+|[^\s@]+@[^\s@]+\.[^\s@]+")
PRODUCT = re.compile(r"[A-Za-z_-]+")
WHOLE_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z_-]+")  # of a product (RFC 9110, 5.6.2)
BORROWED_NAMES = frozenset({"mozilla", "ccbot", "googlebot", "bingbot", "curl", "wget"})
ADDRESS = re.compile(r"([0-9.]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]*[a-z0-9])?")
SUBREDDIT = re.compile(r"(?:u_)?[A-Za-z0-9_.:-]{1,50}")
PATTERN = re.compile(r"(?:https?://)?(?:\*\.)?[a-z0-9_.-]+")
PASSWORD = re.compile(r"(?<=://)([^/?#\s:@]*):[^/?#\s]*@")


class CrawlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a recipe can say under `[crawl]`."""

    submissions: tuple[str, ...] = ()
    """What links are taken from: Reddit's dumps of submissions (zst, zst_blocks, xz, bz2, gz or
    plain ndjson), lists of URLs, CSV or Parquet with a column `url`: paths, globs, or any URI that
    fsspec opens. They count by the digest of their content, not by their names."""

    min_karma: Annotated[int, Meta(ge=0, extra={"changes": ["links"]})] = 3
    """Karma that a link needs to be followed. WebText took 3."""

    karma_rule: Annotated[Literal["any", "sum", "max"], Meta(extra={"changes": ["links"]})] = "sum"
    """How the scores of a URL's distinct submissions become its karma: `sum` adds them; `any` and
    `max` take the best one, so that a single submission must reach `min_karma`. A post and its
    crossposts are one submission, with the best of their scores."""

    since: Annotated[datetime.date | None, Meta(extra={"changes": ["submissions"]})] = None
    """First day (UTC) whose posts count; earlier ones are left out. None: from the beginning."""

    until: Annotated[datetime.date | None, Meta(extra={"changes": ["submissions"]})] = None
    """Last day (UTC) whose posts count; later ones are left out. None: all of them."""

    over_18: Annotated[bool, Meta(extra={"changes": ["submissions"]})] = False
    """Keep posts that Reddit marks as not safe for work."""

    subreddits: Annotated[tuple[str, ...], Meta(extra={"changes": ["submissions"]})] = ()
    """Only posts of these, their names without `r/`, in any case. None named: of all."""

    refused_subreddits: Annotated[tuple[str, ...], Meta(extra={"changes": ["submissions"]})] = ()
    """Posts of these are left out."""

    sample: Annotated[float, Meta(gt=0, le=1, extra={"changes": ["submissions"]})] = 1.0
    """Share of the links, chosen by their ids: a small rehearsal of the whole run."""

    accept_truncated: Annotated[bool, Meta(extra={"changes": ["submissions"]})] = False
    """Take what a dump that ends too early still holds, instead of refusing it."""

    refused_domains: Annotated[tuple[str, ...], Meta(extra={"changes": ["links"]})] = ()
    """Domains, with all below them, that are not followed, beside the built-in list. The paper left
    out `wikipedia.org`."""

    followed_domains: Annotated[tuple[str, ...], Meta(extra={"changes": ["links"]})] = ()
    """Domains, with all below them, that are followed although the built-in list refuses them, or
    `refused_domains` a domain above. What names a host most closely decides."""

    archives: tuple[str, ...] = ()
    """What pages are looked for in first: WARC files (gz, zst or plain), and indexes of captures
    (CDX, CDXJ, or Common Crawl's columnar Parquet): paths, globs or URIs of fsspec."""

    live: Annotated[bool, Meta(extra={"changes": ["pages"]})] = True
    """Ask the web for pages that no archive has. False: no socket is ever opened."""

    user_agent: str = ""
    """Who asks, and where to complain: `name/version (+https://...)` or a mail address. Sent with
    every request; its name is what robots.txt files are matched against. Needed where `live`."""

    shards: Annotated[int, Meta(ge=1, le=65536)] = 512
    """Ranges of ids into which the datasets are cut. Their content does not depend on it; the order
    of the token stream follows it, and so do the losses of a training."""

    archive_base: str = "https://data.commoncrawl.org/"
    """What the file names in an index of captures (CDX or columnar) are appended to: any URI of
    fsspec, or a folder."""

    max_pages_per_host: Annotated[int, Meta(ge=1, extra={"changes": ["pages"]})] = 20000
    """Pages asked of one host; the rest come from archives or end as `over_host_budget`."""

    max_host_s: Annotated[float, Meta(gt=0)] | None = None
    """Seconds that one host may take, from the first request to it in a crawl; what is left of it
    then ends as `over_host_budget`. None: as long as it takes."""

    obey: Annotated[tuple[Signal, ...], Meta(extra={"changes": ["pages"]})] = SIGNALS
    """What a site says of the use of its pages for AI, and is obeyed: such pages end as
    `opted_out`. robots.txt itself is always obeyed."""

    tdm_file: bool = True
    """Ask each origin for its `/.well-known/tdmrep.json`, in which text and data mining can be
    reserved, where `tdm` is obeyed."""

    retry: Annotated[tuple[PageOutcome, ...], Meta(extra={"changes": ["pages"]})] = ()
    """Outcomes of earlier crawls with which a link is asked for again, as `["timeout"]`."""

    asks: Annotated[int, Meta(ge=2, le=100, extra={"changes": ["pages"]})] = 2
    """How many outcomes a link of `retry` may have in all, what archives have of it counted once:
    it is asked for again until it has so many, or a better one."""

    min_delay_s: Annotated[float, Meta(ge=0)] = 1.0
    """Seconds from the end of one request to a host to the next, at least. A host's Crawl-delay can
    raise it."""

    max_delay_s: Annotated[float, Meta(ge=0)] = 120.0
    """Seconds beyond which neither a Crawl-delay nor a back-off is stretched: the crawl would never
    end."""

    latency_factor: Annotated[float, Meta(ge=0)] = 2.0
    """A host that took so long to answer is left alone for so many times as long, within the two
    bounds above."""

    max_retry_after_s: Annotated[float, Meta(ge=0)] = 3600.0
    """Seconds beyond which a Retry-After is not waited for."""

    connections: Annotated[int, Meta(ge=1)] = 256
    """Requests in flight at once in one worker. Each is one open file."""

    timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    """Seconds from the start of a request, its host's name looked up, to the last byte of its
    answer."""

    connect_timeout_s: Annotated[float, Meta(gt=0)] = 10.0
    """Seconds for one connection to be made, TLS included."""

    read_timeout_s: Annotated[float, Meta(gt=0)] = 20.0
    """Seconds between two pieces of an answer."""

    min_bytes_per_s: Annotated[int, Meta(ge=0)] = 200
    """Bytes a second that an answer must reach on the average, once ten seconds of it are over."""

    max_bytes_per_s: Annotated[int, Meta(ge=0)] = 0
    """Bytes a second that one worker takes from the network, on the average; 0: no bound."""

    proxy: str | None = None
    """`http://host:port` of an HTTP proxy that all requests go through. It looks names up itself:
    the addresses behind it are its own to guard."""

    ip: Literal["any", "4", "6"] = "any"
    """Versions of IP that hosts are asked by."""

    name_servers: tuple[str, ...] = ()
    """Addresses, as `9.9.9.9` or `[2620:fe::fe]:53`, of name servers to ask instead of the
    machine's."""

    look_ups: Annotated[int, Meta(ge=1)] = 128
    """Names looked up at once by one worker, at most."""

    journal: str | None = None
    """Folder on each machine's own disk where observations are written first, and go to the root
    by segment. None: they are written into the root at once, which should be a local disk then."""

    min_free_gb: Annotated[float, Meta(ge=0)] = 2.0
    """Free space, in GB, below which no page is asked for: the crawl ends, to be gone on with."""

    max_bytes: Annotated[int, Meta(ge=1024)] = 5 * 1024 * 1024
    """Bytes of a body as transferred; a longer one is cut and ends as `too_large`."""

    max_redirects: Annotated[int, Meta(ge=0, le=20)] = 5
    """Redirects followed for one page, all within its registrable domain."""

    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    """Further attempts where a failure may pass: no connection, time-out, status 429 or 5xx."""

    back_off_s: Annotated[float, Meta(ge=0)] = 5.0
    """Seconds that a host is left alone after such a failure; doubled with each in a row, up to
    `max_delay_s`."""

    max_failures: Annotated[int, Meta(ge=1)] = 10
    """Such failures in a row after which a host is not asked again in this crawl: its other pages
    end as the last one did."""

    ca_file: str | None = None
    """PEM file of certificate authorities to trust instead of the machine's own."""

    resolve: dict[str, str] = msgspec.field(default_factory=dict)
    """Host pattern to `address:port`, instead of DNS: for tests and the demo. A pattern is a name
    or `*.` and a name, with a scheme before it where only that scheme is meant."""

    max_decoded_bytes: Annotated[int, Meta(ge=1024, extra={"changes": ["documents"]})] = (
        20 * 1024 * 1024
    )
    """Bytes of a page after its Content-Encoding is undone; a longer one is `too_large`."""

    max_ratio: Annotated[float, Meta(gt=1, extra={"changes": ["documents"]})] = 200.0
    """How many times a body of over a MiB may grow when it is decoded; beyond, it is a bomb, which
    is `too_large`."""

    extract_cpu_s: Annotated[int, Meta(ge=1, le=86400)] = 20
    """Processor seconds that the extraction of one document may take; then it is a `timeout`."""

    extract_memory_mb: Annotated[int, Meta(ge=512)] = 2048
    """Address space of the extracting child process, in MiB; a document that needs more is lost
    as a `crash`. With less than 512 the child could not even start."""

    def __post_init__(self) -> None:
        if self.user_agent:
            _check_user_agent(self.user_agent)
        for pattern, address in self.resolve.items():
            _check_resolve(pattern, address)
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since: {self.since} is after until, {self.until}")
        _check_network(self)
        if self.min_delay_s > self.max_delay_s:
            raise ValueError(
                f"min_delay_s: {self.min_delay_s:g} is more than max_delay_s, {self.max_delay_s:g}"
            )
        _check_retry(self.retry)
        _check_subreddits("subreddits", self.subreddits)
        _check_subreddits("refused_subreddits", self.refused_subreddits)
        _check_domains("refused_domains", self.refused_domains)
        _check_domains("followed_domains", self.followed_domains)
        if both := sorted({*self.refused_domains} & {*self.followed_domains}):
            raise ValueError(f"followed_domains: {both[0]!r} is in refused_domains too")

    def product_token(self) -> str:
        """The name that robots.txt groups are matched against (RFC 9309, section 2.2.1)."""
        found = PRODUCT.match(self.user_agent)
        return found.group() if found else ""


def _is_address(text: str) -> bool:
    found = ADDRESS.fullmatch(text)
    if not found or not 0 < int(found.group(2)) < 65536:
        return False
    bracketed = found.group(1).startswith("[")
    try:
        return ipaddress.ip_address(found.group(1).strip("[]")).version == (6 if bracketed else 4)
    except ValueError:
        return False


def _check_user_agent(agent: str) -> None:
    product = PRODUCT.match(agent)
    if not product or not agent.isascii() or not agent.isprintable():
        raise ValueError("user_agent must be printable ASCII that begins with a name, as webtext/1")
    name = WHOLE_NAME.match(agent)
    if name and name.group() != product.group():
        raise ValueError(
            f"user_agent: {name.group()!r} has more than letters, - and _: no robots.txt names it"
        )
    if product.group().lower() in BORROWED_NAMES:
        raise ValueError(f"user_agent must not pose as {product.group()}: say who you are")
    if not CONTACT.search(agent):
        raise ValueError("user_agent must hold a contact: an http(s) address or a mail address")


def _check_network(config: CrawlConfig) -> None:
    if config.proxy is not None and not _is_proxy(config.proxy):
        shown = without_password(config.proxy)
        raise ValueError(f"proxy: {shown!r} is not http://host:port of an HTTP proxy")
    for server in config.name_servers:
        if not (_is_address(server) or _is_ip(server)):
            raise ValueError(
                f"name_servers: {server!r} is not an IP address, as 9.9.9.9 or [2620:fe::fe]:53"
            )
    for key, folder in (("journal", config.journal), ("archive_base", config.archive_base)):
        if folder is not None and not folder.strip():
            raise ValueError(f"{key}: is empty; name a folder, or leave it out")
    if config.journal and "://" in config.journal:
        raise ValueError(f"journal: {config.journal!r} is no folder on the machine's own disk")


def without_password(text: str) -> str:
    """An address as it may be shown and kept."""
    return PASSWORD.sub(r"\1:***@", text)


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address)
        told = bool(parts.hostname) and bool(parts.port)
    except ValueError:
        return False
    return told and parts.scheme == "http" and parts.path in ("", "/") and not parts.query


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_retry(outcomes: tuple[PageOutcome, ...]) -> None:
    if PageOutcome.OK in outcomes:
        raise ValueError(
            "retry: 'ok' is what others are asked again for: a page that was had stays"
        )
    if PageOutcome.NOT_ARCHIVED in outcomes:
        raise ValueError("retry: 'not_archived' is no answer of the web: set live = true")


def _check_subreddits(key: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not SUBREDDIT.fullmatch(name):
            raise ValueError(f"{key}: {name!r} is not the name of a subreddit, as AskHistorians")


def _check_domains(key: str, domains: tuple[str, ...]) -> None:
    for domain in domains:
        if not DOMAIN.fullmatch(domain):
            raise ValueError(f"{key}: {domain!r} is not a domain in lower case ASCII, as a-b.org")


def _check_resolve(pattern: str, address: str) -> None:
    if not PATTERN.fullmatch(pattern):
        raise ValueError(f"resolve: {pattern!r} is not a host, `*.` and a host, or one of a scheme")
    if not _is_address(address):
        raise ValueError(f"resolve: {address!r} is not an IP address and a port, as 127.0.0.1:8080")
