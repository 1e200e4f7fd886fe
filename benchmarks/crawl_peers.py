"""One client of the comparison in `crawl.py`, in a process of its own.

Usage: python benchmarks/crawl_peers.py NAME, with the work as JSON on standard input: `port`,
`tls`, `ca_file`, `connections`, `urls` in the order in which they are to be asked for. It prints a
line of JSON: pages and bytes that came, CPU seconds (children included, imports not), peak MiB.
All but webtext come from whatever interpreter runs this; none writes anything.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

AGENT = "webtext-benchmark/1.0 (+https://example.org/bot)"
TOKEN = "webtext-benchmark"
Work = dict[str, Any]
Told = dict[str, int]


def cpu_s() -> tuple[float, float]:
    """User and system seconds of this process and of its children that are gone."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)


def peak_mib() -> float:
    """Memory at the most, of this process. The kernel's figure starts anew with the program; that
    of `getrusage` may be the parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def webtext(work: Work) -> Callable[[], Told]:
    """The crawl itself: politely, with robots.txt, into WARC files and the ledger."""
    root = Path(__file__).parents[1]
    sys.path.insert(0, str(root))
    from crawl import pages
    from crawl.config import CrawlConfig
    from tests.web import links_to

    scheme = "https" if work["tls"] else "http"
    config = CrawlConfig(
        user_agent=AGENT,
        resolve={f"{scheme}://*.test": f"127.0.0.1:{work['port']}"},
        ca_file=work["ca_file"],
        connections=work["connections"],
        min_delay_s=work["delay_s"],
        timeout_s=60.0,
        obey=(),  # the peers know no signals
    )
    links = links_to(*work["urls"])

    def crawl() -> Told:
        rows = [
            row
            for batch in pages.crawl([links], work["folder"], config)
            for row in batch.select(["outcome", "bytes"]).to_pylist()
        ]
        good = [row["bytes"] for row in rows if row["outcome"] == "ok"]
        return {"pages": len(good), "bytes": sum(good)}

    return crawl


def aiohttp(work: Work, *, robots: bool = True, decoded: bool = True) -> Callable[[], Told]:
    """A bare loop: so many pages at once, robots.txt obeyed, nothing written."""
    import uvloop
    from aiohttp import ClientSession, TCPConnector
    from aiohttp.abc import AbstractResolver
    from protego import Protego

    told = {"pages": 0, "bytes": 0}
    rules: dict[str, asyncio.Future[Any]] = {}

    class Here(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> Any:
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2,
                     "proto": 0, "flags": 0}]  # fmt: skip

        async def close(self) -> None:
            pass

    async def allowed(session: ClientSession, address: str) -> bool:
        host = urlsplit(address).netloc
        if host not in rules:
            rules[host] = asyncio.get_running_loop().create_future()
            async with session.get(address.rpartition("/p/")[0] + "/robots.txt") as answer:
                rules[host].set_result(Protego.parse(await answer.text()))
        return bool((await rules[host]).can_fetch(address, TOKEN))

    async def worker(session: ClientSession, left: AsyncIterator[str]) -> None:
        async for address in left:
            if robots and not await allowed(session, address):
                continue
            async with session.get(address) as answer:
                told["bytes"] += len(await answer.read())
                told["pages"] += answer.status == 200

    async def main() -> None:
        left = _each(with_port(work))
        connector = TCPConnector(limit=work["connections"], ssl=trust(work), resolver=Here())
        headers = {"User-Agent": AGENT}
        async with ClientSession(
            connector=connector, headers=headers, auto_decompress=decoded
        ) as session:
            await asyncio.gather(*(worker(session, left) for _ in range(work["connections"])))

    def crawl() -> Told:
        uvloop.run(main())
        return told

    return crawl


async def _each(addresses: list[str]) -> AsyncIterator[str]:
    for address in addresses:
        yield address


def trust(work: Work) -> Any:
    """What aiohttp takes for `ssl`."""
    import ssl

    return ssl.create_default_context(cafile=work["ca_file"]) if work["tls"] else True


def with_port(work: Work) -> list[str]:
    """The addresses with the server's port in them."""
    parts = (address.split("/", 3) for address in work["urls"])
    return [f"{scheme}//{host}:{work['port']}/{path}" for scheme, _, host, path in parts]


def pycurl(work: Work, *, decoded: bool = True) -> Callable[[], Told]:
    """libcurl's multi interface, bare: robots.txt is not asked for."""
    import pycurl as curl

    addresses = with_port(work)

    def crawl() -> Told:
        told = {"pages": 0, "bytes": 0}
        multi = curl.CurlMulti()
        multi.setopt(curl.M_MAXCONNECTS, work["connections"])
        idle = [_handle(curl, work, decoded) for _ in range(work["connections"])]
        left, flying = iter(addresses), 0
        while True:
            while idle and (address := next(left, None)):
                handle = idle.pop()
                handle.setopt(curl.URL, address)
                handle.body = bytearray()
                handle.setopt(curl.WRITEFUNCTION, handle.body.extend)
                multi.add_handle(handle)
                flying += 1
            if not flying:
                return told
            multi.perform()
            _, done, failed = multi.info_read()
            for handle in [*done, *(handle for handle, *_ in failed)]:
                told["pages"] += handle.getinfo(curl.RESPONSE_CODE) == 200
                told["bytes"] += len(handle.body)
                multi.remove_handle(handle)
                idle.append(handle)
                flying -= 1
            if not done:
                multi.select(1.0)

    return crawl


def _handle(curl: Any, work: Work, decoded: bool) -> Any:
    handle = curl.Curl()
    handle.setopt(curl.USERAGENT, AGENT)
    if decoded:
        handle.setopt(curl.ACCEPT_ENCODING, "gzip, deflate")
    else:
        handle.setopt(curl.HTTPHEADER, ["Accept-Encoding: gzip, deflate"])
    handle.setopt(curl.CONNECT_TO, ["::127.0.0.1:"])
    handle.setopt(curl.NOSIGNAL, 1)
    if work["ca_file"]:
        handle.setopt(curl.CAINFO, work["ca_file"])
    return handle


def scrapy(work: Work) -> Callable[[], Told]:
    """Scrapy obeying robots.txt, its pages counted and let go."""
    from scrapy import Spider
    from scrapy.crawler import CrawlerProcess
    from scrapy.http import Request
    from twisted.internet import defer
    from twisted.internet.interfaces import IResolverSimple
    from zope.interface import implementer

    told = {"pages": 0, "bytes": 0}
    addresses = with_port(work)

    class Pages(Spider):
        name = "pages"

        async def start(self) -> Any:
            for address in addresses:
                yield Request(address, dont_filter=True)

        def parse(self, response: Any) -> None:
            told["pages"] += response.status == 200
            told["bytes"] += len(response.body)

    @implementer(IResolverSimple)
    class Nearby:
        @classmethod
        def from_crawler(cls, crawler: Any, reactor: Any) -> "Nearby":
            made = cls()
            made.install_on_reactor = lambda: reactor.installResolver(made)  # type: ignore
            return made

        def getHostByName(self, name: str, timeout: Any = ()) -> Any:
            return defer.succeed("127.0.0.1")

    settings = {
        "ROBOTSTXT_OBEY": True,
        "USER_AGENT": AGENT,
        "CONCURRENT_REQUESTS": work["connections"],
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "DOWNLOAD_DELAY": 0,
        "RETRY_ENABLED": False,
        "COOKIES_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "LOG_LEVEL": "ERROR",
        "DNS_RESOLVER": Nearby,
    }

    def crawl() -> Told:
        process = CrawlerProcess(settings)
        process.crawl(Pages)
        process.start()
        return told

    return crawl


CLIENTS: dict[str, Callable[[Work], Callable[[], Told]]] = {
    "webtext": webtext,
    "scrapy": scrapy,
    "aiohttp": aiohttp,
    "aiohttp, as sent": lambda work: aiohttp(work, decoded=False),
    "pycurl": pycurl,
    "pycurl, as sent": lambda work: pycurl(work, decoded=False),
}


def main(name: str) -> None:
    crawl = CLIENTS[name](json.load(sys.stdin))
    before, began = cpu_s(), time.monotonic()
    told = crawl()
    user_s, system_s = (now - then for now, then in zip(cpu_s(), before, strict=True))
    used = {"cpu_s": user_s + system_s, "user_s": user_s, "system_s": system_s}
    print(json.dumps(told | used | {"wall_s": time.monotonic() - began, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) > 1 else print("a part of crawl.py")
