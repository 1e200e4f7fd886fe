"""Polite fetch and WARC per CPU second of the client, beside Scrapy and bare loops.

Usage: python benchmarks/crawl.py [--rounds 3] [--hosts 2000] [--pages 2] [--connections 128]
[--peers PYTHON]. All clients ask the same server for the same pages, in turn: real pages of 190 kB
in the mean, gzip-coded, two of each host, all hosts first; a robots.txt each; 20 ms before each
answer. Only the client's CPU is counted, its children's included, imports not. webtext obeys
robots.txt, keeps a delay and writes WARC files and rows; the bare loops write nothing.

PYTHON (or the environment's `WEBTEXT_PEERS`) is an interpreter that has scrapy, pycurl, aiohttp,
uvloop and protego; peers that it lacks are left out, with a line that says so. Then two workers of
webtext, half of the hosts each, and the same over TLS. `python benchmarks/crawl.py --rounds 1
--hosts 500` takes under a minute.
"""

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import crawl_web  # noqa: E402

from tests import web_log  # noqa: E402
from tests.web_tls import Authority  # noqa: E402

HERE = Path(__file__).parent
DELAY_S = 0.05
"""webtext's `min_delay_s`, to which the log is held. The others know no delay."""
PEERS = {  # name: connections, module
    "scrapy": (64, "scrapy"),
    "aiohttp": (64, "protego"),
    "aiohttp, as sent": (64, "protego"),
    "pycurl": (64, "pycurl"),
    "pycurl, as sent": (64, "pycurl"),
}
DUTIES = {
    "webtext": "robots, delays, WARC",
    "webtext x 2": "the same, two workers",
    "webtext, TLS": "the same, TLS",
    "scrapy": "robots",
    "aiohttp": "robots, bare loop",
    "aiohttp, TLS": "robots, bare loop, TLS",
    "aiohttp, as sent": "robots, bare loop, not decoded",
    "pycurl": "bare loop of libcurl",
    "pycurl, as sent": "the same, not decoded",
}


@dataclass(frozen=True)
class Run:
    """What one client did in one round."""

    pages: int
    cpu_s: float
    wall_s: float
    peak_mib: float
    violations: int

    @property
    def rate(self) -> float:
        """Pages per CPU second."""
        return self.pages / self.cpu_s


def main(asked: argparse.Namespace) -> None:
    """Measures all clients in turn and says the medians."""
    clients = ["webtext", *_peers(asked.peers), "webtext x 2", "webtext, TLS"]
    if "aiohttp" in clients:
        clients.append("aiohttp, TLS")
    found: dict[str, list[Run]] = {client: [] for client in clients}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority(folder / "tls")
        crawl_web.prepare(folder / "pages")
        for number in range(asked.rounds):
            for client in clients:
                place = folder / f"{number}-{client.replace(' ', '')}"
                found[client].append(_measured(client, place, authority, asked))
    _show(found, asked)


def _peers(python: str | None) -> list[str]:
    """The peers that can be asked. What is missing is said in a line."""
    if python is None:
        print("peers: not installed here: make an environment with scrapy, pycurl, aiohttp, uvloop "
              "and protego, and name its interpreter by --peers")  # fmt: skip
        return []
    there = []
    for client, (_, module) in PEERS.items():
        tried = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
        if tried.returncode == 0:
            there.append(client)
        else:
            print(f"{client}: not installed in {python}: {module} cannot be imported")
    return there


def _measured(client: str, folder: Path, authority: Authority, asked: argparse.Namespace) -> Run:
    kind = next((kind for kind in (" x 2", ", TLS") if client.endswith(kind)), "")
    peer = client.removesuffix(kind)
    numbers = list(range(asked.hosts))
    log = folder / "requests.ndjson"
    folder.mkdir()
    certificates = _certificates(authority, asked.hosts) if kind == ", TLS" else None
    with _server(asked.hosts, folder, certificates) as port:
        work = {
            "port": port,
            "tls": kind == ", TLS",
            "ca_file": str(authority.ca_file) if kind == ", TLS" else None,
            "connections": PEERS[peer][0] if peer in PEERS else asked.connections,
            "delay_s": DELAY_S,
            "folder": str(folder / "ledger"),
        }
        python = sys.executable if peer == "webtext" else asked.peers
        parts = [numbers[::2], numbers[1::2]] if kind == " x 2" else [numbers]
        running = [
            _begun(python, peer, work | {"urls": _urls(part, asked.pages, work["tls"])})
            for part in parts
        ]
        told = [_ended(child, client) for child in running]
    wanted = asked.hosts * asked.pages
    pages = sum(one["pages"] for one in told)
    if pages != wanted:
        raise SystemExit(f"{client}: {pages} pages of {wanted}: the figures would mean nothing")
    held = web_log.violations(web_log.read(log), lambda host: DELAY_S)
    return Run(
        pages,
        sum(one["cpu_s"] for one in told),
        max(one["wall_s"] for one in told),
        max(one["peak_mib"] for one in told),
        len(held),
    )


def _urls(numbers: list[int], pages: int, tls: bool) -> list[str]:
    scheme = "https" if tls else "http"
    return [f"{scheme}://h{n:05}.test/p/{page}" for page in range(pages) for n in numbers]


def _certificates(authority: Authority, hosts: int) -> Path:
    """One certificate for all hosts would be 30 kB: a folder with one for each fifty."""
    folder = authority.ca_file.parent
    if not (folder / "h00000.test-good.pem").exists():
        for first in range(0, hosts, 50):
            names = tuple(f"h{n:05}.test" for n in range(first, min(first + 50, hosts)))
            authority.certificate(names)
    return folder


@contextlib.contextmanager
def _server(hosts: int, folder: Path, certificates: Path | None) -> Iterator[int]:
    pages, log = folder.parent / "pages", folder / "requests.ndjson"
    command = [sys.executable, str(HERE / "crawl_web.py"), str(hosts), str(pages), str(log)]
    command += [str(certificates)] if certificates else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        yield int(child.stdout.readline())
        child.stdin.close()


def _begun(python: str, client: str, work: dict[str, Any]) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [python, str(HERE / "crawl_peers.py"), client],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin
    child.stdin.write(json.dumps(work))
    child.stdin.close()
    return child


def _ended(child: subprocess.Popen[str], client: str) -> dict[str, Any]:
    assert child.stdout
    lines = child.stdout.read().splitlines()
    if child.wait() or not lines:
        raise SystemExit(f"{client} failed: see what it wrote above")
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def _show(found: dict[str, list[Run]], asked: argparse.Namespace) -> None:
    print(f"{asked.hosts * asked.pages:,} pages of {asked.hosts:,} hosts, median of {asked.rounds} "
          f"rounds in turn, {datetime.date.today()}")  # fmt: skip
    print(
        f"{'client':18}{'':32}{'pages/CPU s':>12}{'':>16}{'CPU ms':>8}{'s':>7}{'MiB':>6}{'log':>6}"
    )
    for client, runs in found.items():
        rates = sorted(run.rate for run in runs)
        middle = statistics.median(rates)
        spread = f"[{rates[0]:,.0f}-{rates[-1]:,.0f}]"
        wall = statistics.median(run.wall_s for run in runs)
        peak = max(run.peak_mib for run in runs)
        held = Counter(run.violations for run in runs).most_common(1)[0][0]
        if client.startswith("webtext"):
            held = max(run.violations for run in runs)
        print(f"{client:18}{DUTIES[client]:32}{middle:>12,.0f}{spread:>16}{1000 / middle:>8.2f}"
              f"{wall:>7.1f}{peak:>6.0f}{held:>6}")  # fmt: skip
    for client, over in [("webtext", "scrapy"), ("webtext", "aiohttp"), ("webtext x 2", "webtext"),
                         ("webtext, TLS", "aiohttp, TLS")]:  # fmt: skip
        if over in found:
            print(f"{client} / {over}: {_ratio(found[client], found[over]):.2f}")
    worst = [client for client, runs in found.items() if client.startswith("webtext")
             and any(run.violations for run in runs)]  # fmt: skip
    if worst:
        raise SystemExit(f"{', '.join(worst)}: impolite, by the server's own log")


def _ratio(ours: list[Run], theirs: list[Run]) -> float:
    """Within each round, for what moves both is left out; then the median."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(one.rate / other.rate for one, other in pairs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--pages", type=int, default=2, help="of each host")
    parser.add_argument("--connections", type=int, default=128, help="of webtext")
    parser.add_argument("--peers", default=os.environ.get("WEBTEXT_PEERS"), help="an interpreter")
    return parser.parse_args()


if __name__ == "__main__":
    main(_arguments())
