"""Names are asked of name servers: what these say, or do not, is an outcome; and no address of a
private network comes of it, whenever they say so."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crawl import addresses, names, network, observations
from crawl.addresses import PrivateAddress
from crawl.names import Names
from tests import web

from . import name_server
from .conftest import Settings, crawl
from .name_server import NXDOMAIN, SERVFAIL, TRUNCATED, A, Reply

PAGE = "<html><body><p>Some text.</p></body></html>"
PUBLIC, OTHER, SIX = "8.8.8.8", "9.9.9.9", "2606:4700::1111"


def look_up(says: Callable[[str, int], Reply], *hosts: str, **how: Any) -> tuple[list[Any], Any]:
    """The addresses of each host, or what was raised; and who was asked for them."""
    with name_server.serve(says) as server:

        async def ask() -> list[Any]:
            found = Names((), servers=[server.place], **({"at_once": 8} | how))
            asked = [found.resolve(host, 80) for host in hosts]
            said = await asyncio.gather(*asked, return_exceptions=True)
            await found.close()
            return [
                one if isinstance(one, BaseException) else {each["host"] for each in one}
                for one in said
            ]

        return asyncio.run(ask()), server


def test_a_name_has_the_addresses_of_both_versions_or_of_the_one_that_is_asked_for() -> None:
    says = lambda name, kind: [PUBLIC, OTHER, SIX]  # noqa: E731
    assert look_up(says, "a.test")[0] == [{PUBLIC, OTHER, SIX}]
    assert look_up(says, "a.test", ip="4")[0] == [{PUBLIC, OTHER}]
    assert look_up(says, "a.test", ip="6")[0] == [{SIX}]


@pytest.mark.parametrize(
    ("reply", "code"),
    [(NXDOMAIN, socket.EAI_NONAME), ([], socket.EAI_NONAME), (SERVFAIL, socket.EAI_AGAIN),
     (TRUNCATED, socket.EAI_AGAIN)],
)  # fmt: skip
def test_who_is_nobody_and_what_may_pass(reply: Reply, code: int) -> None:
    (found,), _ = look_up(lambda name, kind: reply if name else [], "a.test")
    assert isinstance(found, socket.gaierror) and found.errno == code
    assert "a.test" in str(found)


def test_a_name_server_that_says_nothing_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "LOOK_UP_S", 0.2)
    (found,), server = look_up(lambda name, kind: None, "a.test")
    assert isinstance(found, socket.gaierror) and found.errno == socket.EAI_AGAIN
    assert server.asked


def test_a_silent_name_is_given_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "SERVER_S", 0.1)
    monkeypatch.setattr(names, "TRIES", 2)
    (found,), server = look_up(lambda name, kind: None, "a.test", ip="4")
    assert isinstance(found, socket.gaierror) and found.errno == socket.EAI_AGAIN
    assert server.asked["a.test", A] == 2


@pytest.mark.parametrize(
    "private",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1"],
)  # fmt: skip
def test_a_name_that_stands_in_a_private_network_has_no_address(private: str) -> None:
    (found,), _ = look_up(lambda name, kind: [private], "evil.test")
    assert isinstance(found, PrivateAddress)
    # among public ones it is passed over
    (found,), _ = look_up(lambda name, kind: [private, PUBLIC, SIX], "evil.test")
    assert found == {PUBLIC, SIX}


def test_each_answer_is_judged_also_one_that_was_good_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "KEPT_S", 0.0)
    replies = iter([PUBLIC, "127.0.0.1"])
    with name_server.serve(lambda name, kind: [next(replies)]) as server:

        async def twice() -> None:
            found = Names((), servers=[server.place], ip="4", at_once=1)
            assert [one["host"] for one in await found.resolve("evil.test", 80)] == [PUBLIC]
            with pytest.raises(PrivateAddress):
                await found.resolve("evil.test", 80)
            await found.close()

        asyncio.run(twice())


def test_an_answer_is_kept_for_a_while_and_a_failure_is_not() -> None:
    replies = {"good.test": [PUBLIC], "bad.test": NXDOMAIN}
    with name_server.serve(lambda name, kind: replies[name]) as server:

        async def thrice() -> None:
            found = Names((), servers=[server.place], ip="4", at_once=1)
            for _ in range(3):
                await found.resolve("good.test", 80)
                with pytest.raises(socket.gaierror):
                    await found.resolve("bad.test", 80)
            await found.close()

        asyncio.run(thrice())
    assert (server.asked["good.test", A], server.asked["bad.test", A]) == (1, 3)


def test_so_many_answers_are_kept_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "KEPT_NAMES", 2)
    with name_server.serve(lambda name, kind: [PUBLIC]) as server:

        async def go_round() -> None:
            found = Names((), servers=[server.place], ip="4", at_once=1)
            for name in ("a.test", "b.test", "c.test", "c.test", "b.test", "a.test"):
                await found.resolve(name, 80)
            await found.close()

        asyncio.run(go_round())
    assert [server.asked[f"{name}.test", A] for name in "abc"] == [2, 1, 1]


def test_no_more_names_are_looked_up_at_once_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most = 0, 0

    async def slow(*_: Any) -> list[str]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return [PUBLIC]

    monkeypatch.setattr(names, "addresses", slow)
    look_up(lambda name, kind: None, *(f"h{n}.test" for n in range(20)), at_once=3)
    assert most == 3


def test_pins_come_before_name_servers() -> None:
    pins = addresses.pinned({"https://*.test": "127.0.0.1:8443", "b.test": "[::1]:8080"})
    with name_server.serve(lambda name, kind: [PUBLIC]) as server:

        async def ask() -> list[Any]:
            found = Names(pins, servers=[server.place], ip="4", at_once=1)
            places = [("a.test", 443), ("b.test", 80), ("a.test", 80)]
            told = [(await found.resolve(*place))[0] for place in places]
            await found.close()
            return [(one["host"], one["port"], one["family"]) for one in told]

        four, six = socket.AF_INET, socket.AF_INET6
        assert asyncio.run(ask()) == [
            ("127.0.0.1", 8443, four),
            ("::1", 8080, six),
            (PUBLIC, 80, four),
        ]


# Through the crawl


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a way out of this machine: no name server's silence is its own."""
    monkeypatch.setattr(network, "is_offline", lambda: False)


def one_page(site: web.Site, settings: Settings, folder: Path, says: Any, **how: Any) -> Any:
    site.page("evil.example", "/", PAGE)
    address = f"http://evil.example:{site.port}/"
    with name_server.serve(says) as server:
        config = settings(name_servers=(server.place,), **({"retries": 2} | how))
        return crawl(config, folder, address)[address]["outcome"], server


def test_a_name_server_that_is_gone_blames_no_host(
    settings: Settings, tmp_path: Path, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "PAUSES_S", (0.05, 0.05))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    config = settings(name_servers=(place,), retries=0)
    with pytest.raises(names.NoNameServer, match="no name server"):
        crawl(config, tmp_path, "http://good.example/")
    assert len(observations.read(tmp_path)) == 0
    # one that is there is enough
    with name_server.serve(lambda name, kind: NXDOMAIN) as server:
        config = settings(name_servers=(place, server.place), retries=0)
        row = crawl(config, tmp_path, "http://good.example/")["http://good.example/"]
    assert row["outcome"] == "unreachable"


def test_a_name_server_that_is_begun_anew_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = iter([True, True, False])

    async def addresses(*_: object) -> list[str]:
        if next(refused):
            raise names.NoNameServer("refused")
        return ["93.184.216.34"]

    async def look_up() -> list[str]:
        return await names.Names((), at_once=1)._addresses("a.example")

    monkeypatch.setattr(names, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(names, "addresses", addresses)
    assert asyncio.run(look_up()) == ["93.184.216.34"]


def test_where_others_are_answered_a_refusal_is_of_one_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def addresses(_: object, host: str, family: object) -> list[str]:
        if host == "bad.example":
            raise names.NoNameServer("refused")
        return ["93.184.216.34"]

    async def look_up() -> list[object]:
        found = names.Names((), at_once=2)
        hosts = ("bad.example", "good.example")
        return await asyncio.gather(*map(found._addresses, hosts), return_exceptions=True)

    monkeypatch.setattr(names, "PAUSES_S", (0.01,))
    monkeypatch.setattr(names, "addresses", addresses)
    bad, good = asyncio.run(look_up())
    assert isinstance(bad, socket.gaierror) and bad.errno == socket.EAI_AGAIN
    assert good == ["93.184.216.34"]


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"])
def test_a_host_whose_name_leads_into_this_machine_is_not_asked(
    site: web.Site, settings: Settings, tmp_path: Path, online: None, private: str
) -> None:
    outcome, server = one_page(site, settings, tmp_path, lambda name, kind: [private])
    assert (outcome, site.log) == ("private_address", [])
    assert all(count == 1 for count in server.asked.values())


@pytest.mark.parametrize(("reply", "times"), [(NXDOMAIN, 1), (SERVFAIL, 3)])
def test_a_name_that_nobody_has_is_not_tried_again_and_a_fault_is(
    site: web.Site, settings: Settings, tmp_path: Path, online: None, reply: Reply, times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(names, "TRIES", 1)
    outcome, server = one_page(site, settings, tmp_path, lambda name, kind: reply, ip="4")
    assert outcome == "unreachable"
    assert server.asked["evil.example", A] == times


def test_a_name_that_turns_private_between_two_looks_is_refused(
    site: web.Site, settings: Settings, tmp_path: Path, online: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Rebinding: public when it is looked up first, of this machine when it is connected to."""
    monkeypatch.setattr(names, "KEPT_S", 0.0)
    replies = iter([[PUBLIC], *[["127.0.0.1"]] * 9])
    outcome, server = one_page(
        site, settings, tmp_path, lambda name, kind: next(replies), ip="4", retries=0
    )
    assert (outcome, site.log) == ("private_address", [])
    assert server.asked["evil.example", A] >= 2


def test_the_very_address_is_looked_at_whoever_gave_it(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken_in(self: Names, host: str, *_: Any, **__: Any) -> list[Any]:
        return [names._resolved(host, "127.0.0.1", site.port)]

    monkeypatch.setattr(Names, "resolve", taken_in)
    config = settings(resolve={}, retries=0)
    row = crawl(config, tmp_path, "http://evil.example/")["http://evil.example/"]
    assert (row["outcome"], site.log) == ("private_address", [])
