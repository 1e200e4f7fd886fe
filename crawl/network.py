"""One request over the network, and nothing about when or why: where the sockets are.

Redirects are not followed, cookies are not kept, codings are not undone, certificates are verified,
and no address of a private network is connected to unless `[crawl.resolve]` names it. Every way in
which the world fails here is a `Failure` with its outcome.
"""

import asyncio
import functools
import ipaddress
import socket
import ssl
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


class PrivateAddress(OSError):
    """A host stands in a private network."""


class Failure(Exception):
    """No answer, or none that could be read."""

    def __init__(self, outcome: PageOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome

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


def session(config: CrawlConfig) -> aiohttp.ClientSession:
    """What requests go through. Raises BadInput where `ca_file` cannot be read."""
    pins = pinned(config)
    connector = aiohttp.TCPConnector(
        limit=0,  # the frontier limits
        force_close=True,  # aiohttp asks again, unseen, where a kept connection turns out dead
        ssl=_trust(config),
        resolver=_Resolver(pins),
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


async def ask(
    client: aiohttp.ClientSession, target: str, config: CrawlConfig, *, any_type: bool = False
) -> Exchange:
    """The answer to a GET for `target`, a fetch URL without a fragment. Raises Failure.

    The body of a success that says it is no web page is not read, unless `any_type`.
    """
    if url.is_private(url.host(target)) and not _is_pinned(target, config):
        raise Failure(PageOutcome.PRIVATE_ADDRESS)
    try:
        async with (
            asyncio.timeout(config.timeout_s),
            client.get(URL(target, encoded=True), allow_redirects=False) as response,
        ):
            wanted = any_type or not response.ok or content.may_be_html(_type(response))
            body, truncated = await _body(response, config.max_bytes, wanted)
            return Exchange(_request(response), _answer(response, body), truncated)
    except (TimeoutError, aiohttp.ClientError, OSError, UnicodeError) as error:
        raise Failure(_outcome(error)) from error


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
    """Whether an IP address is one of the public internet, whatever it is wrapped in (RFC 6890)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class _Resolver(AbstractResolver):
    def __init__(self, pins: tuple[Pin, ...]) -> None:
        self._pins = pins
        self._system = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        for pin in self._pins:
            if pin.fits(host, port):
                return [_resolved(host, pin)]
        found = await self._system.resolve(host, port, family)
        public = [result for result in found if is_public(result["host"])]
        if found and not public:
            raise PrivateAddress(f"{host} stands in a private network")
        return public

    async def close(self) -> None:
        await self._system.close()


def _resolved(host: str, pin: Pin) -> ResolveResult:
    family = socket.AF_INET6 if ":" in pin.address else socket.AF_INET
    return ResolveResult(
        hostname=host,
        host=pin.address,
        port=pin.address_port,
        family=family,
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
    response: aiohttp.ClientResponse, most: int, wanted: bool
) -> tuple[bytes, str | None]:
    if not wanted:
        return b"", "unspecified"
    if (response.content_length or 0) > most:
        return b"", "length"
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            return bytes(body[:most]), "length"
    return bytes(body), None


def _type(response: aiohttp.ClientResponse) -> str | None:
    return response.headers.get("Content-Type")


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    headers = tuple((_text(name), _text(value)) for name, value in response.raw_headers)
    return Answer(response.status, response.reason or "", headers, body)


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
    if isinstance(error, aiohttp.ClientConnectorError):
        private = isinstance(error.os_error, PrivateAddress)
        return PageOutcome.PRIVATE_ADDRESS if private else PageOutcome.UNREACHABLE
    if isinstance(error, aiohttp.ClientOSError):
        return PageOutcome.UNREACHABLE
    if isinstance(error, aiohttp.ClientError | UnicodeError):
        return PageOutcome.PROTOCOL_ERROR
    return PageOutcome.UNREACHABLE
