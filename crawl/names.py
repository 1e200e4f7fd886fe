"""The addresses of hosts: asked of name servers, many at once, kept for a while.

Rule: a name is looked up before the time of a request begins to run, with limits of its own, so
that dead names cost the living ones nothing. Only public addresses are given out, but where
`[crawl.resolve]` says where a host stands.
"""

import asyncio
import math
import socket
from collections import OrderedDict
from collections.abc import Sequence

import aiodns
import pycares
from aiodns import error as ares
from aiohttp.abc import AbstractResolver, ResolveResult

from crawl import url
from crawl.addresses import Pin, PrivateAddress, is_public

LOOK_UP_S = 30.0
"""Seconds for one name."""
SERVER_S, TRIES = 5.0, 2
"""Seconds that a name server has, and how often each is asked: resolv.conf's defaults."""
PAUSES_S = (1.0, 3.0, 6.0)
"""Seconds between attempts where no name server can be reached: one may just be begun anew."""
KEPT_S = 600.0
"""Seconds that an answer is used for."""
KEPT_NAMES = 1 << 17
FAMILIES = {"any": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}

UNKNOWN = frozenset({ares.ARES_ENOTFOUND, ares.ARES_ENODATA, ares.ARES_EBADNAME})
"""What says that there is no such host; all else may pass."""


class NoNameServer(OSError):
    """Nobody is there to be asked about names: no word about any host."""


class Names(AbstractResolver):
    """Looks names up; aiohttp asks it whenever it connects. To be made within a running loop."""

    def __init__(
        self, pins: Sequence[Pin], *, ip: str = "any", servers: Sequence[str] = (), at_once: int
    ) -> None:
        """`ip`: the version of it, `any`, `4` or `6`. `servers`: instead of the machine's.
        `at_once`: names looked up at one time, at most."""
        self._pins = pins
        self._family = FAMILIES[ip]
        self._asked = aiodns.DNSResolver(
            nameservers=servers or None,
            loop=asyncio.get_running_loop(),
            timeout=SERVER_S,
            tries=TRIES,
            flags=pycares.ARES_FLAG_NOSEARCH,
        )
        self._turns = asyncio.Semaphore(at_once)
        self._answered_at = -math.inf
        self._kept: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()

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
        public = [address for address in await self._addresses(host) if is_public(address)]
        if not public:
            raise PrivateAddress(f"{host} stands in a private network")
        return [_resolved(host, address, port) for address in public]

    async def close(self) -> None:
        await self._asked.close()

    async def _addresses(self, host: str) -> list[str]:
        now = asyncio.get_running_loop().time()
        until, found = self._kept.get(host, (now, []))
        if until > now:
            return found
        async with self._turns:
            found = await self._look_up(host)
        self._kept[host] = asyncio.get_running_loop().time() + KEPT_S, found
        if len(self._kept) > KEPT_NAMES:
            self._kept.popitem(last=False)
        return found

    async def _look_up(self, host: str) -> list[str]:
        clock = asyncio.get_running_loop().time
        began = clock()
        for pause_s in (*PAUSES_S, None):
            try:
                found = await self._once(host)
                self._answered_at = clock()
                return found
            except NoNameServer as error:
                if self._answered_at >= began:  # others are answered: it is this name's own
                    raise socket.gaierror(socket.EAI_AGAIN, f"{host}: {error}") from error
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            except socket.gaierror as error:
                if error.errno == socket.EAI_NONAME:
                    self._answered_at = clock()
                raise
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, host: str) -> list[str]:
        try:
            async with asyncio.timeout(LOOK_UP_S):
                return await addresses(self._asked, host, self._family)
        except TimeoutError as error:
            raise socket.gaierror(socket.EAI_AGAIN, f"{host}: no name server answers") from error


async def addresses(
    asked: aiodns.DNSResolver, host: str, family: socket.AddressFamily
) -> list[str]:
    """The addresses of a name, each once. Raises socket.gaierror and NoNameServer."""
    try:
        found = await asked.getaddrinfo(host, family, type=socket.SOCK_STREAM)
    except ares.DNSError as error:
        if await _is_refused(asked, error):
            raise NoNameServer(
                f"no name server can be reached, of this machine or of crawl.name_servers: {host}"
            ) from error
        code = socket.EAI_NONAME if error.args[0] in UNKNOWN else socket.EAI_AGAIN
        raise socket.gaierror(code, f"{host}: {error.args[-1]}") from error
    return list(dict.fromkeys(node.addr[0].decode() for node in found.nodes))


async def _is_refused(asked: aiodns.DNSResolver, error: ares.DNSError) -> bool:
    """Whether name servers refuse any connection, not only the second one, by TCP, that a long
    answer about one name needs: they are asked for what every one of them knows."""
    if error.args[0] != ares.ARES_ECONNREFUSED:
        return False
    try:
        await asked.query_dns(".", "NS")
    except ares.DNSError as again:
        return bool(again.args[0] == ares.ARES_ECONNREFUSED)
    return False


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST,
    )
