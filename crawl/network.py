"""One request over the network, and nothing about when or why: where the sockets are.

Redirects are not followed, cookies are not kept, codings are not undone, certificates are verified,
and no address of a private network is connected to unless `[crawl.resolve]` names it. Names are
looked up before a request's time begins to run, in threads of their own: dead names cost the
living ones nothing. Every way in which the world fails here is a `Failure` with its outcome.
"""

import asyncio
import contextlib
import errno
import functools
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from crawl import content, url
from crawl.config import CrawlConfig
from crawl.schema import BadInput, PageOutcome
from crawl.warc import Answer, Request

ACCEPT = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1"
ACCEPT_ENCODING = "gzip, deflate, br"
MAX_HEADER_BYTES = 64 * 1024
PASSING = frozenset({PageOutcome.UNREACHABLE, PageOutcome.TIMEOUT, PageOutcome.PROTOCOL_ERROR})
DEFAULT_PORTS = {"http": 80, "https": 443}
LOOK_UPS = 64
"""Names looked up at once, at most. Each is a thread."""
LOOK_UP_S = 30.0
"""Seconds for one name: three servers, asked twice, five seconds each (resolv.conf's defaults)."""
NAMES_S = 600.0
"""Seconds that an answer is used for."""

UNICAST = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Global by IANA's registries of special addresses, or unknown to older Pythons, and no web site's:
# protocol assignments (Teredo, ORCHID), 6to4 and its relays, AS112, AMT, documentation.
SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24",
         "2001::/23", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)  # fmt: skip


Address = str


LOCAL_FAULTS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
    }
)
# Said of a network far away, too, and of a name server that does not know what to say.
FAULTS_OFFLINE = frozenset({errno.ENETUNREACH, socket.EAI_AGAIN})
FAR = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are nobody's (RFC 5737, RFC 3849), so that the way to them is the way out."""


class PrivateAddress(OSError):
    """A host stands in a private network."""


class Failure(Exception):
    """No answer, or none that could be read."""

    def __init__(self, outcome: PageOutcome, *, connected: bool = True) -> None:
        """`connected`: False where no connection was made, so that no server failed."""
        super().__init__(outcome.value)
        self.outcome = outcome
        self.connected = connected

    @property
    def passing(self) -> bool:
        """Whether another attempt may go better."""
        return self.outcome in PASSING


@dataclass(frozen=True)
class Exchange:
    """A request and its answer; `truncated` is WARC's word for why the body is not all of it."""

    request: Request
    answer: Answer
    truncated: str | None


@dataclass(frozen=True)
class Pin:
    """One line of `[crawl.resolve]`: a host, or all below `suffix`, and where it stands."""

    port: int | None
    name: str
    wild: bool
    address: str
    address_port: int

    def fits(self, host: str, port: int) -> bool:
        """Whether the line speaks for a host, asked at a port."""
        if self.port is not None and port != self.port:
            return False
        host = host.lower()
        return host.endswith("." + self.name) if self.wild else host == self.name


@dataclass(frozen=True)
class Web:
    """What requests go through."""

    client: aiohttp.ClientSession
    names: "_Resolver"


@contextlib.asynccontextmanager
async def session(config: CrawlConfig) -> AsyncIterator[Web]:
    """The web, for as long as the context. Raises BadInput where `ca_file` cannot be read."""
    pins = pinned(config)
    trust = _trust(config)
    names = _Resolver(pins, min(LOOK_UPS, config.connections))
    try:
        async with _client(config, pins, names, trust) as client:
            yield Web(client, names)
    finally:
        await names.close()


def _client(
    config: CrawlConfig, pins: tuple["Pin", ...], names: "_Resolver", trust: ssl.SSLContext
) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=0,  # the frontier limits
        force_close=True,  # aiohttp asks again, unseen, where a kept connection turns out dead
        ssl=trust,
        resolver=names,
        use_dns_cache=False,  # the resolver has its own
        socket_factory=functools.partial(
            _socket, frozenset((pin.address, pin.address_port) for pin in pins)
        ),
    )
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        headers={
            "User-Agent": config.user_agent,
            "Accept": ACCEPT,
            "Accept-Encoding": ACCEPT_ENCODING,
        },
    )


async def ask(web: Web, target: str, config: CrawlConfig, *, first: int | None = None) -> Exchange:
    """The answer to a GET for `target`, a fetch URL without a fragment. Raises Failure.

    The body of a success that says it is no web page is not read, nor is one that says it is longer
    than `max_bytes`. With `first`, so many bytes are read whatever the server says.
    """
    asked = URL(target, encoded=True)
    if url.is_private(url.host(target)) and not _is_pinned(target, config):
        raise Failure(PageOutcome.PRIVATE_ADDRESS, connected=False)
    try:
        await web.names.known(asked.raw_host or "", asked.port or 0)
        async with (
            asyncio.timeout(config.timeout_s),
            web.client.get(asked, allow_redirects=False) as response,
        ):
            body, truncated = await _body(response, config.max_bytes, first)
            return Exchange(_request(response), _answer(response, body), truncated)
    except (TimeoutError, aiohttp.ClientError, OSError, UnicodeError) as error:
        if _is_ours(error):
            raise
        unconnected = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | PrivateAddress
        connected = not isinstance(error, unconnected | socket.gaierror)
        raise Failure(_outcome(error), connected=connected) from error


def _is_ours(error: BaseException) -> bool:
    """Whether this machine failed, not the server: what it says of a host would be slander, and the
    ledger would repeat it for ever."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if not isinstance(cause, OSError):
        return False
    return cause.errno in LOCAL_FAULTS or (cause.errno in FAULTS_OFFLINE and is_offline())


def is_offline() -> bool:
    """Whether this machine has no way out. Nothing is sent: a datagram socket that connects only
    looks the way up."""
    for family, address in FAR:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((address, 9))
            return False
    return True


def pinned(config: CrawlConfig) -> tuple[Pin, ...]:
    """The lines of `[crawl.resolve]`: those with a scheme first, then the longest names."""
    pins = []
    for pattern, address in config.resolve.items():
        scheme, _, name = pattern.rpartition("://")
        place, _, port = address.rpartition(":")
        wild = name.startswith("*.")
        name = name.removeprefix("*.")
        pins.append(Pin(DEFAULT_PORTS.get(scheme), name, wild, place.strip("[]"), int(port)))
    return tuple(sorted(pins, key=lambda pin: (pin.port is None, pin.wild, -len(pin.name))))


def is_public(address: str) -> bool:
    """Whether an IP address is globally routable unicast (RFC 6890), such as a web site may have.
    An IPv4 address in IPv6's clothes (mapped, NAT64) is judged as what it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped or ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        if ip not in UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL)


class _Resolver(AbstractResolver):
    def __init__(self, pins: tuple[Pin, ...], threads: int) -> None:
        self._pins = pins
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="names")
        self._turns = asyncio.Semaphore(threads)
        self._found: dict[str, tuple[float, list[Address]]] = {}

    async def known(self, host: str, port: int) -> None:
        """Looks a name up, if it is one and its address is not known. Raises OSError."""
        if not url.is_address(host):
            await self.resolve(host, port)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        for pin in self._pins:
            if pin.fits(host, port):
                return [_resolved(host, pin.address, pin.address_port)]
        now = asyncio.get_running_loop().time()
        until, found = self._found.get(host, (now, []))
        if until <= now:
            found = await self._look_up(host)
            self._found[host] = now + NAMES_S, found
        public = [address for address in found if is_public(address)]
        if not public:
            raise PrivateAddress(f"{host} stands in a private network")
        return [_resolved(host, address, port) for address in public]

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str) -> list[Address]:
        # A thread that overstays keeps its turn: who waits for one has not begun to be late.
        await self._turns.acquire()
        asked = asyncio.get_running_loop().run_in_executor(self._pool, addresses, host)
        asked.add_done_callback(self._looked_up)
        try:
            return await asyncio.wait_for(asyncio.shield(asked), LOOK_UP_S)
        except TimeoutError as error:
            raise socket.gaierror(socket.EAI_AGAIN, f"{host}: no name server answers") from error

    def _looked_up(self, asked: asyncio.Future[list[Address]]) -> None:
        self._turns.release()
        if not asked.cancelled():
            asked.exception()  # told to whoever waits; where nobody does any more, it is no news


def addresses(host: str) -> list[Address]:
    """The addresses of a name, by the machine's resolver. Raises socket.gaierror; blocks."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _resolved(host: str, address: Address, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST,
    )


def _socket(pins: frozenset[tuple[str, int]], info: Any) -> socket.socket:
    # The last look, at the very address: aiohttp asks no resolver about a literal one.
    family, kind, proto, _, (address, port, *_) = info
    if (address, port) not in pins and not is_public(address):
        raise PrivateAddress(f"{address} is an address of a private network")
    return socket.socket(family, kind, proto)


def _trust(config: CrawlConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"crawl.ca_file: {config.ca_file}: cannot be read: {error}") from error


def _is_pinned(target: str, config: CrawlConfig) -> bool:
    port = DEFAULT_PORTS["https" if target.startswith("https:") else "http"]
    return any(pin.fits(url.host(target), port) for pin in pinned(config))


async def _body(
    response: aiohttp.ClientResponse, most: int, first: int | None
) -> tuple[bytes, str | None]:
    if first is None:
        if response.ok and not content.may_be_html(response.headers.get("Content-Type")):
            return b"", "unspecified"
        if (response.content_length or 0) > most:
            return b"", "length"
    most = most if first is None else first
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            return bytes(body[:most]), "length"
    return bytes(body), None


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    headers = tuple((_text(name), _text(value)) for name, value in response.raw_headers)
    # aiohttp reads what is not UTF-8 in a reason as surrogates
    reason = _text((response.reason or "").encode("utf-8", "surrogateescape"))
    return Answer(response.status, reason, headers, body)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _request(response: aiohttp.ClientResponse) -> Request:
    info = response.request_info
    line = f"{info.method} {info.url.raw_path_qs} HTTP/1.1"
    return Request(line, tuple((name, value) for name, value in info.headers.items()))


def _outcome(error: BaseException) -> PageOutcome:
    """The outcome that an error of aiohttp or of the system means."""
    if isinstance(error, TimeoutError):
        return PageOutcome.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return PageOutcome.TLS_ERROR
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, PrivateAddress):
        return PageOutcome.PRIVATE_ADDRESS
    if isinstance(error, aiohttp.ClientConnectorError):
        return PageOutcome.UNREACHABLE
    if isinstance(error, aiohttp.ClientOSError):
        return PageOutcome.UNREACHABLE
    if isinstance(error, aiohttp.ClientError | UnicodeError):
        return PageOutcome.PROTOCOL_ERROR
    return PageOutcome.UNREACHABLE
