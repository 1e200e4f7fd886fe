"""The web that `crawl.py` asks: real pages, gzip-coded, on thousands of virtual hosts of one port.

Usage: python benchmarks/crawl_web.py HOSTS PAGES LOG [CERTIFICATES]: PAGES and CERTIFICATES are
folders that `crawl.py` fills. It says its port on standard output and ends with its standard input.
Each host has a robots.txt and as many pages as are asked for; each answer comes 20 ms after its
request and lies ready before the first.
"""

import asyncio
import functools
import gzip
import itertools
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from crawl import content, warc  # noqa: E402
from tests import web_server  # noqa: E402
from tests.web_answers import response  # noqa: E402
from tests.web_log import FileLog, Hit  # noqa: E402
from tests.web_server import Answer, Ready  # noqa: E402

PAGES = ROOT.parent / "shared/data/web/wcxb-dev.warc.zst"
MEAN_BYTES = 190_000
MADE = 200
"""Pages made where the real ones are not here."""
LATENCY_S = 0.02
ROBOTS = (
    b"User-agent: *\nDisallow: /private\nDisallow: /search?\nAllow: /\n\nSitemap: /sitemap.xml\n"
)


def bodies() -> list[bytes]:
    """Web pages of 190 kB in the mean: the largest of the real ones, or made of documentation."""
    found = list(_real() if PAGES.exists() else _made())
    found.sort(key=len, reverse=True)
    sums = itertools.accumulate(len(body) for body in found)
    taken = [
        body
        for count, (body, total) in enumerate(zip(found, sums, strict=True), 1)
        if total / count >= MEAN_BYTES
    ]
    return taken or found


def _real() -> Iterator[bytes]:
    for record in warc.records(str(PAGES), 1 << 26):
        if record.answer and record.answer.status == 200:
            coding = record.answer.header("Content-Encoding")
            yield content.decode(record.answer.body, coding, 1 << 26)


def _made() -> Iterator[bytes]:
    """Pages of `MEAN_BYTES` of the documentation that Python brings."""
    command = [sys.executable, "-m", "pipeline.demo.sources"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True).stdout
    lines = map(json.loads, told.splitlines())
    texts = [line["html"] for line in lines if "html" in line]
    articles = itertools.cycle(texts)
    for _ in range(MADE):
        parts: list[str] = []
        while sum(map(len, parts)) < MEAN_BYTES:
            parts.append(next(articles))
        yield f"<!doctype html><html><body>{''.join(parts)}</body></html>".encode()


def prepare(folder: Path) -> None:
    """Writes the pages, gzip-coded, to a folder, so that a server need not make them."""
    folder.mkdir()
    for number, body in enumerate(bodies()):
        (folder / f"{number:04}.gz").write_bytes(gzip.compress(body, 6, mtime=0))


class PagesOfHosts:
    """Answers by host number and page number; all else is not there."""

    def __init__(self, hosts: int, pages: Path, log: FileLog) -> None:
        self.log = log
        coded = {"Content-Encoding": "gzip"}
        self._pages = [
            Ready(response(200, path.read_bytes(), coded), LATENCY_S)
            for path in sorted(pages.iterdir())
        ]
        plain = response(200, ROBOTS, {"Content-Type": "text/plain"})
        self._robots = Ready(plain, LATENCY_S)
        self._none = Ready(response(404), LATENCY_S)
        self._hosts = hosts

    def find(self, hit: Hit) -> Answer:
        """What a request is answered with."""
        if hit.path == "/robots.txt":
            return self._robots
        if not hit.path.startswith("/p/"):
            return self._none
        number = int(hit.host[1:6]) + self._hosts * int(hit.path[3:])
        return self._pages[number % len(self._pages)]


def _by_name(folder: Path) -> ssl.SSLContext:
    """Shows each host the certificate that it shares with its fifty neighbours."""

    @functools.cache
    def context(first: int) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(folder / f"h{first:05}.test-good.pem")
        return made

    def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        number = int((name or "h00000")[1:6])
        sock.context = context(number - number % 50)

    chooser = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chooser.load_cert_chain(folder / "h00000.test-good.pem")
    chooser.sni_callback = choose  # type: ignore[assignment]
    return chooser


async def main(hosts: int, pages: str, log: str, certificates: str | None) -> None:
    """Serves until nobody holds the other end of standard input."""
    tls = _by_name(Path(certificates)) if certificates else None
    server = await web_server.listen(
        PagesOfHosts(hosts, Path(pages), FileLog(Path(log))), "127.0.0.1", 0, tls=tls
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(print("a part of crawl.py"))
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    given = [*sys.argv[1:], None]
    run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], given[3]))
