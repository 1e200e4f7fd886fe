"""The loopback web itself: what it answers, what its log says, and that the log convicts only who
did it. A crawl is judged by these, so they are tried with clients of a few lines first."""

import gzip
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawl import url
from tests import web, web_faults, web_log, web_pages, web_robots, web_tls
from tests.web_log import LAG_S, ROBOTS, FileLog, Hit

ROOT = Path(__file__).parents[1]
DELAY_S = 1.0
WRITES = """
import sys
from pathlib import Path
from tests.web_log import FileLog, Hit
log, one = FileLog(Path(sys.argv[1])), Hit("b", "/", 1.0)
log.begun(one)
one.ended = 2.0
log.over(one)
"""
ASKS = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"GET /p/0 HTTP/1.1\\r\\nHost: h00001.test\\r\\n\\r\\n")
client.recv(1)
"""
SERVES = """
import sys, time
from pathlib import Path
from tests import web
with web.spawn(web.World(hosts=1), Path(sys.argv[1])) as served:
    print(served.port, flush=True)
    time.sleep(60)
"""


def hit(host: str, path: str, at: float, ended: float | None, *, cut: bool = False) -> Hit:
    return Hit(host, path, at, ended=ended, cut=cut)


def kinds(log: list[Hit], **rules: object) -> list[str]:
    found = web_log.violations(log, lambda host: DELAY_S, **rules)  # type: ignore[arg-type]
    return [violation.kind for violation in found]


def ask(port: int, host: str, path: str, *, stop: int | None = None) -> bytes:
    """All that is answered, or its first `stop` bytes, after which the client leaves."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        fields = f"Host: {host}:{port}\r\nConnection: close\r\nX-A: b\r\n"
        client.sendall(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
        answer = b""
        while (stop is None or len(answer) < stop) and (piece := client.recv(1 << 16)):
            answer += piece
        return answer


def settled(log: Iterator[Hit] | object, count: int) -> list[Hit]:
    """The requests, once there are so many and all are answered."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        hits = list(log() if callable(log) else log)  # type: ignore[call-overload]
        if len(hits) >= count and all(one.ended is not None for one in hits):
            return hits
        time.sleep(0.01)
    raise AssertionError(f"{log} did not settle")


# The checks


@st.composite
def polite(draw: st.DrawFn) -> list[Hit]:
    """A log of who waited for the delay after each answer, host by host."""
    log = []
    for number in range(draw(st.integers(1, 4))):
        now, path = draw(st.floats(0, 10)), ROBOTS
        for page in range(draw(st.integers(1, 6))):
            ended = now + draw(st.floats(0, 5))
            log.append(hit(f"h{number}.test", path, now, ended))
            now, path = ended + DELAY_S + draw(st.floats(0.001, 3)), f"/{page}"
    return draw(st.permutations(log))


@given(polite())
def test_who_is_polite_is_accused_of_nothing(log: list[Hit]) -> None:
    assert kinds(log) == []


@given(polite(), st.data())
def test_one_request_too_early_is_found(log: list[Hit], data: st.DataObject) -> None:
    late = [one for one in log if one.path != ROBOTS]
    if not late:
        return
    moved = data.draw(st.sampled_from(late))
    earlier = [one for one in log if one.host == moved.host and one.at < moved.at]
    last = max(one.ended or 0.0 for one in earlier)
    moved.at = last + data.draw(st.floats(-0.5, 0.999)) * DELAY_S
    moved.ended = max(moved.at, moved.ended or 0.0)
    assert {"too close", "overlapping"} & set(kinds(log))


def test_what_is_still_being_answered_overlaps_with_all_that_follows() -> None:
    log = [hit("a.test", ROBOTS, 0, 1), hit("a.test", "/1", 3, None), hit("a.test", "/2", 99, 100)]
    assert kinds(log) == ["overlapping"]


def test_a_long_answer_counts_behind_a_short_one() -> None:
    log = [hit("a.test", ROBOTS, 0, 50), hit("a.test", ROBOTS, 1, 2), hit("a.test", "/", 40, 41)]
    assert kinds(log) == ["overlapping", "overlapping"]


def test_who_leaves_may_be_heard_of_late_but_not_later_than_that() -> None:
    first = hit("a.test", ROBOTS, 0, 10, cut=True)
    again = hit("a.test", ROBOTS, 10 + DELAY_S - LAG_S / 2, 12)
    assert kinds([first, again]) == []
    assert kinds([first, replace(again, at=10 + DELAY_S - 2 * LAG_S)]) == ["too close"]
    assert kinds([first, replace(again, at=10 - 2 * LAG_S)]) == ["overlapping"]


def test_hosts_of_one_domain_are_one_where_that_is_asked() -> None:
    log = [hit("a.x.test", ROBOTS, 0, 1), hit("b.x.test", ROBOTS, 1.5, 2)]
    assert kinds(log) == []
    assert kinds(log, of=url.registrable_domain) == ["too close"]


def test_each_host_is_owed_its_own_delay() -> None:
    log = [hit(name, path, at, at) for name in "ab" for path, at in ((ROBOTS, 0), ("/", 3))]
    found = web_log.too_close(log, {"a": 2.0, "b": 4.0}.__getitem__)
    assert [(one.kind, one.host) for one in found] == [("too close", "b")]


def test_a_page_is_asked_for_so_often_and_not_once_more() -> None:
    log = [hit("a", ROBOTS, 0, 0), *(hit("a", "/x", n * 9, n * 9) for n in (1, 2, 3))]
    assert kinds(log) == ["repeated", "repeated"]
    assert kinds(log, most=lambda host, path: 2) == ["repeated"]
    assert kinds([hit("a", ROBOTS, 9 * n, 9 * n) for n in range(3)]) == []


def test_robots_first_its_answer_awaited_for_each_scheme() -> None:
    page = hit("a", "/", 5, 6)
    assert kinds([page]) == ["unruly"]
    assert kinds([page, hit("a", ROBOTS, 9, 9)]) == ["unruly"]
    assert kinds([replace(page, host="b"), hit("a", ROBOTS, 0, 1)]) == ["unruly"]
    assert kinds([hit("a", ROBOTS, 0, 1), replace(page, tls=True)]) == ["unruly"]
    assert "unruly" in kinds([hit("a", ROBOTS, 0, None), page])
    assert kinds([hit("a", ROBOTS, 0, 1), page]) == []


def test_what_is_forbidden_is_found() -> None:
    log = [hit("a", ROBOTS, 0, 1), hit("a", "/private/1", 5, 6)]
    forbidden = kinds(log, forbids=lambda host, path: path.startswith("/private/"))
    assert forbidden == ["disallowed"]


# The log in a file


def test_a_log_in_a_file_is_read_as_it_was_written_but_for_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = FileLog(path)
    hits = [Hit(f"h{n}.test", "/ü?q=\u2028", 1.5 + n, tls=n == 2) for n in range(3)]
    for one in hits:
        log.begun(one)
    hits[1].ended, hits[1].cut = 2.75, True
    log.over(hits[1])
    assert web_log.read(path) == hits
    with path.open("ab") as file:
        file.write(b'[1,4,"h4.te')
    assert web_log.read(path) == hits


def test_two_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    mine = Hit("a", "/", 1.0)
    log = FileLog(path)
    log.begun(mine)
    subprocess.run([sys.executable, "-c", WRITES, str(path)], check=True, cwd=ROOT)
    assert [(one.host, one.ended) for one in web_log.read(path)] == [("a", None), ("b", 2.0)]


# The server


def test_a_request_is_logged_with_its_moments(tmp_path: Path) -> None:
    with web.serve() as site:
        site.page("a.web.test", "/x?y=z", "<p>text")
        before = time.monotonic()
        assert ask(site.port, "A.web.test", "/x?y=z").endswith(b"<p>text")
        after = time.monotonic()
        (one,) = settled(site.log, 1)
    assert (one.host, one.path, one.cut) == ("a.web.test", "/x?y=z", False)
    assert one.ended is not None and before <= one.at <= one.ended <= after
    assert one.headers["x-a"] == "b"
    assert b"404" in one.head or site.find(Hit("a.web.test", "/none", 0.0)).startswith(
        b"HTTP/1.1 404"
    )


def test_an_answer_that_is_not_taken_has_not_ended() -> None:
    with web.serve() as site:
        site.route("a.web.test", "/", web.response(200, bytes(64 << 20)))
        with socket.create_connection(("127.0.0.1", site.port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a.web.test\r\n\r\n")
            assert client.recv(1)
            assert site.log[0].ended is None
        (one,) = settled(site.log, 1)
    assert one.cut


def test_a_connection_serves_many_requests_where_it_is_kept() -> None:
    with web.serve() as site:
        for name in "ab":
            answer = web.response(200, name.encode())
            site.route("a.web.test", f"/{name}", web.Ready(answer, 0.01))
        with socket.create_connection(("127.0.0.1", site.port), timeout=60) as client:
            for name in "ab":
                client.sendall(f"GET /{name} HTTP/1.1\r\nHost: a.web.test\r\n\r\n".encode())
                assert client.recv(1 << 16).endswith(name.encode())
    assert site.paths("a.web.test") == ["/a", "/b"]
    assert all(one.ended and one.ended - one.at >= 0.01 for one in site.log)


@pytest.mark.parametrize("fault", [web_faults.hang, web_faults.endless, web_faults.drip_head])
def test_a_client_that_leaves_cuts_its_answer_off(fault: web.Handler) -> None:
    with web.serve() as site:
        site.route("a.web.test", "/", fault)
        stop = 0 if fault is web_faults.hang else 10
        ask(site.port, "a.web.test", "/", stop=stop)
        (one,) = settled(site.log, 1)
    assert one.cut


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_bombs_are_small_and_grow(coding: str) -> None:
    _, _, body = web_faults.bomb(coding).partition(b"\r\n\r\n")
    assert len(body) < 100_000
    undo = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "br": brotli.decompress,
        "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    }
    assert len(undo[coding](body)) > web_faults.BOMB_BYTES * 0.9


# Whole worlds


def test_a_world_follows_from_its_seed_alone() -> None:
    world, same, other = web.World(seed=1), web.World(seed=1), web.World(seed=2)
    links = list(world.urls())
    assert links == list(same.urls()) != list(other.urls())
    assert [world.expected(link) for link in links] == [same.expected(link) for link in links]
    first = Hit(world.host(7), world.path(7, 0), 0.0)
    assert world.find(first) == same.find(first)
    assert len(set(links)) == len(links)
    assert len({url.registrable_domain(url.host(link)) for link in links}) == world.hosts == 10_000


def test_a_world_holds_what_its_weights_say() -> None:
    world = web.World(seed=3, tls={"none": 3, "good": 1}, max_pages=10)
    hosts = Counter(world.robots_of(number) for number in range(world.hosts))
    assert set(hosts) == set(web_robots.KINDS)
    share = web_robots.WEIGHTS["open"] / sum(web_robots.WEIGHTS.values())
    assert hosts["open"] / world.hosts == pytest.approx(share, abs=0.03)
    pages = Counter(world.page_of(*world.place(link)) for link in world.urls())
    assert set(pages) == set(web_pages.KINDS)
    secure = sum(link.startswith("https:") for link in world.urls())
    assert secure / sum(pages.values()) == pytest.approx(1 / 4, abs=0.03)
    counts = sorted(world.count(number) for number in range(world.hosts))
    assert (counts[0], counts[-1]) == (1, 10) and counts[world.hosts // 2] <= 3


def test_what_a_world_forbids_is_what_it_expects_to_be_left_alone() -> None:
    world = web.World(seed=4, hosts=2000, max_pages=5)
    forbidden = {"robots_disallowed", "robots_unreachable"}
    for link in world.urls():
        number, path = world.place(link)
        expected = world.expected(link)
        if world.page_of(number, path) == "offsite" and world.robots_of(number) != "closed":
            continue  # another host decides
        assert world.forbids(world.host(number), path) == (expected in forbidden), link
        assert not world.forbids(world.host(number), ROBOTS)
    with pytest.raises(ValueError, match="no address of this world"):
        world.expected("http://elsewhere.test/")


def test_flaky_pages_recover_and_the_rest_never_change() -> None:
    world = web.World(seed=5, hosts=3000, pages={"flaky": 1, "plain": 1}, robots={"open": 1})
    for link in list(world.urls())[:200]:
        number, path = world.place(link)
        first, second, third = (
            getattr(world.find(Hit(world.host(number), path, 0.0)), "data", b"")[:12]
            for _ in range(3)
        )
        assert second == third == b"HTTP/1.1 200"
        assert (first == second) == (world.page_of(number, path) == "plain")


def test_a_world_of_its_own_process_outlives_its_client(tmp_path: Path) -> None:
    world = web.World(seed=6, hosts=50, robots={"open": 1}, pages={"hangs": 1}, latency_s=0.001)
    with web.spawn(world, tmp_path / "web") as served:
        client = subprocess.Popen([sys.executable, "-c", ASKS, str(served.port)])
        while not served.log:
            assert client.poll() is None
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
        client.wait()
        (one,) = settled(lambda: served.log, 1)
        assert (one.host, one.path, one.cut) == ("h00001.test", "/p/0", True)
        assert ask(served.port, "h00002.test", ROBOTS).startswith(b"HTTP/1.1 200")
        assert [other.path for other in settled(lambda: served.log, 2)] == ["/p/0", ROBOTS]
    assert served.log[0] == one


def test_a_world_ends_with_who_began_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVES, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        port = int(starter.stdout.readline())
        assert ask(port, "h00000.test", "/none").startswith(b"HTTP/1.1 404")
        os.kill(starter.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionError:
            return
        time.sleep(0.01)
    raise AssertionError("it serves on")


def test_certificates_are_as_bad_as_they_are_meant_to_be(tmp_path: Path) -> None:
    weights = dict.fromkeys(web_tls.KINDS, 1.0)
    world = web.World(seed=7, hosts=200, tls=weights, robots={"open": 1}, pages={"plain": 1})
    by_kind = {world.tls_of(number): number for number in range(world.hosts)}
    assert set(by_kind) == set(web_tls.KINDS)
    said = {}
    with web.serve_world(world, tmp_path) as served:
        trust = ssl.create_default_context(cafile=served.ca_file)
        for kind, number in by_kind.items():
            name = world.host(number)
            with socket.create_connection(("127.0.0.1", served.tls_port), timeout=60) as plain:
                try:
                    with trust.wrap_socket(plain, server_hostname=name) as client:
                        client.sendall(f"GET /x HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
                        said[kind] = client.recv(12).decode()
                except ssl.SSLCertVerificationError as error:
                    said[kind] = error.verify_message
        (one,) = settled(lambda: served.log, 1)
    assert one.tls and one.origin == f"https://{world.host(by_kind['good'])}"
    assert said.pop("good") == "HTTP/1.1 404"
    words = {"expired": "expired", "wrong_name": "mismatch", "self_signed": "self-signed",
             "unknown_authority": "unable to get local issuer"}  # fmt: skip
    assert {kind: word in said[kind] for kind, word in words.items()} == dict.fromkeys(words, True)


def test_a_world_needs_no_memory_for_its_hosts() -> None:
    few, many = web.World(hosts=10), web.World(hosts=5_000)
    for world in (few, many):
        assert all(world.expected(link) for link in world.urls())
    assert len(pickle.dumps(many)) < len(pickle.dumps(few)) + 10
