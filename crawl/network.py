"""One request over the network, and nothing about when or why: where the sockets are.

Redirects are not followed, cookies are not kept, codings are not undone, certificates are verified,
and no address of a private network is connected to unless `[crawl.resolve]` names it. Every way in
which the world fails here is a `Failure` with its outcome; what this machine lacks is raised.
"""

import asyncio
import contextlib
import datetime
import errno
import functools
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from yarl import URL

from crawl import url
from crawl.addresses import (
    DEFAULT_PORTS,
    Pin,
    PrivateAddress,
    is_offline,
    is_public,
    pinned,
)
from crawl.config import CrawlConfig, without_password
from crawl.names import FAMILIES, Names, NoNameServer
from crawl.schema import BadInput, PageOutcome
from crawl.warc import Answer, Exchange, Request

ACCEPT = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1"
ACCEPT_ENCODING = "gzip, deflate, br, zstd"
MAX_HEADER_BYTES = 64 * 1024
SECRET = "proxy-authorization"
GRACE_S = 10.0
"""Seconds of an answer before its rate counts."""
PASSING = frozenset({PageOutcome.UNREACHABLE, PageOutcome.TIMEOUT, PageOutcome.PROTOCOL_ERROR})
PROXY_AUTHENTICATION = 407

NOT_ASCII = re.compile(rb"[^\x00-\x7f]")

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

Met = tuple[str, int, str | None]
"""Address, port and version of TLS of the server that a request came to."""
MET: ContextVar[list[Met]] = ContextVar("met")
Wanted = Callable[[Answer], bool]


class Failure(Exception):
    """No answer, or none that could be read."""

    def __init__(
        self, outcome: PageOutcome, *, connected: bool = True, nobody: bool = False
    ) -> None:
        """`connected`: False where no connection was made, so that no server failed. `nobody`:
        there is no such host."""
        super().__init__(outcome.value)
        self.outcome = outcome
        self.connected = connected
        self.passing = outcome in PASSING and not nobody
        """Whether another attempt may go better."""


class ProxyRefuses(OSError):
    """The recipe's proxy lets nobody through: no word about any host."""


class _BrokenOff(aiohttp.ClientError):
    """A connection broke before an answer came: told so, aiohttp does not ask once more."""


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp repeats a GET at once, unseen, after a reset or a close without an answer: two
    requests of which the frontier gave one."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenOff(str(error)) from error


@dataclass
class Web:
    """What requests go through; `received` counts the bytes of bodies that came."""

    client: aiohttp.ClientSession
    names: Names
    config: CrawlConfig
    pins: tuple[Pin, ...]
    received: int = field(default=0)


@contextlib.asynccontextmanager
async def session(config: CrawlConfig) -> AsyncIterator[Web]:
    """The web, for as long as the context. Raises BadInput where `ca_file` cannot be read."""
    pins = pinned(config.resolve)
    trust = _trust(config)
    proxy = _proxy_pins(config)
    names = Names(
        (*pins, *proxy), ip=config.ip, servers=config.name_servers, at_once=config.look_ups
    )
    try:
        async with _client(config, (*pins, *proxy), names, trust) as client:
            yield Web(client, names, config, pins)
    finally:
        await names.close()


class _Connector(aiohttp.TCPConnector):
    """aiohttp's, which also tells whom it met: a response has let go of its connection early."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        if transport is not None and (place := transport.get_extra_info("peername")):
            tls = transport.get_extra_info("ssl_object")
            MET.get().append((place[0], place[1], tls.version() if tls else None))
        return connection


def _client(
    config: CrawlConfig, pins: tuple[Pin, ...], names: Names, trust: ssl.SSLContext
) -> aiohttp.ClientSession:
    allowed = frozenset((pin.address, pin.address_port) for pin in pins)

    connector = _Connector(
        limit=0,  # the frontier limits
        force_close=True,  # a host is left alone for longer than servers keep a connection
        ssl=trust,
        resolver=names,
        use_dns_cache=False,  # the resolver has its own
        socket_factory=functools.partial(_socket, allowed, FAMILIES[config.ip]),
    )
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=config.connect_timeout_s, sock_read=config.read_timeout_s
        ),
        middlewares=(_once,),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        headers={
            "User-Agent": config.user_agent,
            "Accept": ACCEPT,
            "Accept-Encoding": ACCEPT_ENCODING,
        },
    )


def _socket(allowed: frozenset[tuple[str, int]], version: int, info: Any) -> socket.socket:
    # The last look, at the very address: aiohttp asks no resolver about a literal one.
    family, kind, proto, _, (address, port, *_) = info
    if (address, port) not in allowed:
        if not is_public(address):
            raise PrivateAddress(f"{address} is an address of a private network")
        if version not in (socket.AF_UNSPEC, family):
            raise OSError(errno.EAFNOSUPPORT, "crawl.ip: is not a version to ask by", address)
    return socket.socket(family, kind, proto)


async def find(web: Web, target: str) -> None:
    """Looks up where `target` stands, for `ask` to know: what that takes, with the queue for it, is
    no time of its host's. Raises Failure."""
    if _is_private(url.host(target)) and not _is_pinned(target, web.pins):
        raise Failure(PageOutcome.PRIVATE_ADDRESS, connected=False)
    if web.config.proxy:
        return
    asked = URL(target, encoded=True)
    try:
        await web.names.known(asked.raw_host or "", asked.port or 0)
    except (OSError, UnicodeError) as error:
        if _is_ours(error):
            raise
        raise _failure(error) from error


async def ask(
    web: Web, target: str, moment: datetime.datetime, *, most: int, wanted: Wanted | None = None
) -> Exchange:
    """The answer to a GET for `target`, a fetch URL without a fragment. Raises Failure.

    At most `most` bytes of the body are read. With `wanted`, which is shown the answer before its
    body came, none are read where it says no, or where the server says that there are more. An
    answer that is no success stands by itself, be its body broken off.
    """
    await find(web, target)
    asked = URL(target, encoded=True)
    config, met, body = web.config, list[Met](), bytearray()
    answer: Answer | None = None
    MET.set(met)
    try:
        async with (
            asyncio.timeout(config.timeout_s),
            web.client.get(asked, allow_redirects=False, proxy=config.proxy) as response,
        ):
            answer = _answer(response)
            if config.proxy and answer.status == PROXY_AUTHENTICATION:
                shown = without_password(config.proxy)
                raise ProxyRefuses(f"crawl.proxy: {shown}: wants to know who you are")
            truncated = await _read(web, response, answer, most, wanted, body)
    except (TimeoutError, aiohttp.ClientError, OSError, UnicodeError) as error:
        if _is_ours(error):
            raise
        if answer is None or 200 <= answer.status < 300:
            raise _failure(error) from error
        truncated = "time" if isinstance(error, TimeoutError) else "disconnect"
    protocols = [answer.protocol.lower()]
    if met and met[-1][2]:
        protocols.append(met[-1][2].lower().replace("v", "/"))
    return Exchange(
        target=target,
        moment=moment,
        answer=replace(answer, body=bytes(body)),
        request=_request(response),
        truncated=truncated,
        address=met[-1][0] if met and not config.proxy else None,
        protocols=tuple(protocols),
    )


def _failure(error: BaseException) -> Failure:
    unconnected = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | PrivateAddress
    unconnected |= socket.gaierror | aiohttp.ClientHttpProxyError
    connected, nobody = not isinstance(error, unconnected), _is_nobody(error)
    return Failure(_outcome(error), connected=connected, nobody=nobody)


def _is_ours(error: BaseException) -> bool:
    """Whether this machine failed, not the server: what it says of a host would be slander, and the
    ledger would repeat it for ever."""
    if isinstance(error, _BrokenOff) and error.__cause__:
        return _is_ours(error.__cause__)
    if isinstance(error, aiohttp.ClientProxyConnectionError | ProxyRefuses):
        return True
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status == PROXY_AUTHENTICATION
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, NoNameServer):
        return True
    if not isinstance(cause, OSError):
        return False
    return cause.errno in LOCAL_FAULTS or (cause.errno in FAULTS_OFFLINE and is_offline())


def _is_nobody(error: BaseException) -> bool:
    """Whether a name server says that there is no such host."""
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME


def _trust(config: CrawlConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"crawl.ca_file: {config.ca_file}: cannot be read: {error}") from error


def _proxy_pins(config: CrawlConfig) -> tuple[Pin, ...]:
    """The proxy, which the recipe names, may stand in a private network."""
    if not config.proxy:
        return ()
    place = URL(config.proxy)
    host, port = place.raw_host or "", place.port or 80
    if not url.is_address(host):
        try:
            host_address = socket.gethostbyname(host)
        except OSError as error:
            shown = without_password(config.proxy)
            raise BadInput(f"crawl.proxy: {shown}: {error}") from error
        return (Pin(port, host, False, host_address, port),)
    return (Pin(port, host, False, host, port),)


def _is_private(host: str) -> bool:
    """Whether nobody on the internet has this name or address; nor is an address good that is not
    written as it should be, as nobody can say what would be asked."""
    if not url.is_address(host):
        return url.is_local(host)
    try:
        return not is_public(host)
    except ValueError:
        return True


def _is_pinned(target: str, pins: tuple[Pin, ...]) -> bool:
    port = DEFAULT_PORTS["https" if target.startswith("https:") else "http"]
    return any(pin.fits(url.host(target), port) for pin in pins)


async def _read(
    web: Web,
    response: aiohttp.ClientResponse,
    answer: Answer,
    most: int,
    wanted: Wanted | None,
    body: bytearray,
) -> str | None:
    """Reads into `body`, so that what came is there if it breaks off; returns WARC's word for why
    it is not all."""
    if wanted:
        if not wanted(answer):
            return "unspecified"
        if (response.content_length or 0) > most:
            return "length"
    loop = asyncio.get_running_loop()
    began, least = loop.time(), web.config.min_bytes_per_s
    async for chunk in response.content.iter_any():
        body += chunk
        web.received += len(chunk)
        if len(body) > most:
            del body[most:]
            return "length"
        if (gone := loop.time() - began) > GRACE_S and len(body) < least * gone:
            raise TimeoutError(f"less than {least} bytes a second")
    return None


def _answer(response: aiohttp.ClientResponse) -> Answer:
    headers = tuple((_text(name), _value(value)) for name, value in response.raw_headers)
    # aiohttp reads what is not UTF-8 in a reason as surrogates
    reason = _text((response.reason or "").encode("utf-8", "surrogateescape"))
    return Answer(response.status, reason, headers, b"", _protocol(response))


def _protocol(response: aiohttp.ClientResponse) -> str:
    version = response.version or aiohttp.HttpVersion11
    return f"HTTP/{version.major}.{version.minor}"


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _value(raw: bytes) -> str:
    """The value of a header; what is no UTF-8 as escapes: the octets of a Location are what is to
    be asked for."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_ASCII.sub(lambda found: b"%%%02X" % ord(found.group()), raw).decode("ascii")


def _request(response: aiohttp.ClientResponse) -> Request:
    info = response.request_info
    line = f"{info.method} {info.url.raw_path_qs} HTTP/1.1"
    # but for the password of a proxy, which is nobody's business
    told = ((name, value) for name, value in info.headers.items() if name.lower() != SECRET)
    return Request(line, tuple(told))


def _outcome(error: BaseException) -> PageOutcome:
    """The outcome that an error of aiohttp or of the system means."""
    if isinstance(error, _BrokenOff) and error.__cause__:
        return _outcome(error.__cause__)
    if isinstance(error, TimeoutError):
        return PageOutcome.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return PageOutcome.TLS_ERROR
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, PrivateAddress):
        return PageOutcome.PRIVATE_ADDRESS
    # a proxy that cannot reach a host says so
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return PageOutcome.UNREACHABLE
    if isinstance(error, aiohttp.ClientOSError):
        return PageOutcome.UNREACHABLE
    if isinstance(error, aiohttp.ClientError | UnicodeError):
        return PageOutcome.PROTOCOL_ERROR
    return PageOutcome.UNREACHABLE
