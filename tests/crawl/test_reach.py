"""Whom a request reaches: a server that can prove who it is, at a public address or one that the
recipe names, by the version of IP and the proxy that it names."""

import errno
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from crawl import network
from tests import web, web_server, web_tls

from . import proxy
from .conftest import LOCAL, Settings, ask, crawl, got

PAGE = "<html><body><p>Some text.</p></body></html>"

# TLS


@pytest.fixture
def authority(tmp_path: Path) -> web_tls.Authority:
    return web_tls.Authority(tmp_path / "authority")


@pytest.mark.parametrize("kind", web_tls.KINDS)
def test_only_a_certificate_that_can_be_verified_is_good(
    settings: Settings, authority: web_tls.Authority, kind: str
) -> None:
    with web.serve(authority.context(("a.web.test",), kind)) as site:
        site.page("a.web.test", "/", PAGE)
        resolve = {"https://*.web.test": f"{LOCAL}:{site.port}"}
        config = settings(resolve=resolve, ca_file=str(authority.ca_file))
        if kind == "good":
            answer = got(config, "https://a.web.test/")
            assert answer.answer.status == 200
            assert answer.protocols == ("http/1.1", "tls/1.3")
        else:
            assert ask(config, "https://a.web.test/") == ["tls_error"]
            assert list(site.log) == []
        # nobody trusts an authority that the recipe does not name
        assert ask(settings(resolve=resolve), "https://a.web.test/") == ["tls_error"]


def test_what_is_no_tls_at_all_is_a_tls_error(site: web.Site, settings: Settings) -> None:
    assert ask(settings(), "https://a.web.test/") == ["tls_error"]


def test_an_old_protocol_is_a_tls_error(settings: Settings, authority: web_tls.Authority) -> None:
    context = authority.context(("a.web.test",))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with web.serve(context) as site:
        site.page("a.web.test", "/", PAGE)
        resolve = {"https://*.web.test": f"{LOCAL}:{site.port}"}
        config = settings(resolve=resolve, ca_file=str(authority.ca_file))
        assert got(config, "https://a.web.test/").protocols == ("http/1.1", "tls/1.2")


# Addresses


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "10.0.0.1",
     "169.254.169.254", "192.168.0.1", "0.0.0.0", "255.255.255.255", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[fe80::1]", "[fd00::1]",
     "[2002:7f00:1::]", "localhost", "a.localhost", "printer.local", "intranet", "x.internal"],
)  # fmt: skip
def test_no_address_of_a_private_network_is_asked(
    site: web.Site, settings: Settings, host: str
) -> None:
    assert ask(settings(), f"http://{host}:{site.port}/") == ["private_address"]
    assert list(site.log) == []


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]"])
def test_a_public_address_is_connected_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    tried: list[str] = []

    def refused(*how: Any) -> socket.socket:
        tried.append(how[-1][-1][0])
        raise ConnectionRefusedError(errno.ECONNREFUSED, "not from here")

    monkeypatch.setattr(network, "_socket", refused)
    assert ask(settings(), f"http://{host}/") == ["unreachable"]
    assert tried == [host.strip("[]")]


def test_the_last_look_is_at_the_socket(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp asks no resolver about literal addresses: these are looked at when they connect."""
    monkeypatch.setattr(network, "_is_private", lambda host: False)
    config = settings(resolve={"*.web.test": f"{LOCAL}:{site.port + 1}"})
    for host in (LOCAL, "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1"):
        assert ask(config, f"http://{host}:{site.port}/") == ["private_address"]
    assert list(site.log) == []


def test_only_the_very_port_that_the_recipe_names_is_let_through(
    site: web.Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_is_private", lambda host: False)
    site.page(LOCAL, "/", PAGE)
    other = settings(resolve={"*.web.test": f"{LOCAL}:{site.port + 1}"})
    assert ask(other, f"http://{LOCAL}:{site.port}/") == ["private_address"]
    named = settings(resolve={"*.web.test": f"{LOCAL}:{site.port}"})
    assert got(named, f"http://{LOCAL}:{site.port}/").answer.status == 200


@pytest.fixture
def six() -> Any:
    """The loopback web on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    site = web.Site()
    with web.in_thread(lambda: web_server.listen(site, "::1", 0)) as server:
        site.port = web.port_of(server)
        yield site


def test_a_host_is_asked_by_ipv6(six: web.Site, settings: Settings) -> None:
    six.page("a.web.test", "/", PAGE)
    resolve = {"*.web.test": f"[::1]:{six.port}"}
    answer = got(settings(resolve=resolve))
    assert (answer.answer.status, answer.address) == (200, "::1")
    # whatever version is asked by, a place that the recipe names is one
    assert got(settings(resolve=resolve, ip="4")).address == "::1"


@pytest.mark.parametrize(
    ("version", "address"),
    [("6", "8.8.8.8"), ("4", "2606:4700::1111"), ("4", "[2606:4700::1111]")],
)
def test_an_address_of_the_other_version_is_not_connected_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, version: str, address: str
) -> None:
    config, bare = settings(ip=version), ipaddress.ip_address(address.strip("[]"))
    family = socket.AF_INET if bare.version == 4 else socket.AF_INET6
    info = (family, socket.SOCK_STREAM, 6, "", (str(bare), 80))
    with pytest.raises(OSError, match=r"crawl\.ip"):
        network._socket(frozenset(), network.FAMILIES[config.ip], info)
    network._socket(frozenset(), network.FAMILIES["any"], info).close()


# Through a proxy


def test_all_goes_through_the_proxy_that_the_recipe_names(
    site: web.Site, settings: Settings
) -> None:
    site.page("named-nowhere.example", "/x", PAGE)
    with proxy.serve(site.port) as led:
        config = settings(proxy=led.place, resolve={})
        answer = got(config, "http://named-nowhere.example/x")
    assert led.asked == ["GET http://named-nowhere.example/x HTTP/1.1"]
    assert (answer.answer.body, answer.address) == (PAGE.encode(), None)
    assert answer.request and answer.request.line == "GET /x HTTP/1.1"


def test_tls_goes_through_the_proxy_and_is_verified(
    settings: Settings, authority: web_tls.Authority
) -> None:
    with (
        web.serve(authority.context(("a.example",))) as site,
        proxy.serve(site.port) as led,
    ):
        site.page("a.example", "/", PAGE)
        config = settings(proxy=led.place, resolve={}, ca_file=str(authority.ca_file))
        assert got(config, "https://a.example/").answer.body == PAGE.encode()
        assert ask(config, "https://b.example/") == ["tls_error"]
    assert led.asked == ["CONNECT a.example:443 HTTP/1.1", "CONNECT b.example:443 HTTP/1.1"]


def test_a_private_address_is_refused_behind_a_proxy_too(
    site: web.Site, settings: Settings
) -> None:
    with proxy.serve(site.port) as led:
        config = settings(proxy=led.place, resolve={})
        for host in (LOCAL, "[::1]", "10.0.0.1", "localhost"):
            assert ask(config, f"http://{host}/") == ["private_address"]
        assert ask(config, f"http://{LOCAL}:{led.port}/") == ["private_address"]
    assert led.asked == []


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_host_that_the_proxy_cannot_reach_is_unreachable(
    site: web.Site, settings: Settings, status: int
) -> None:
    with proxy.serve(site.port, status) as led:
        config = settings(proxy=led.place, resolve={})
        assert ask(config, "https://a.example/") == ["unreachable"]
        assert got(config, "http://a.example/").answer.status == status


@pytest.mark.parametrize("target", ["http://a.example/", "https://a.example/"])
def test_a_proxy_that_is_down_or_shut_blames_no_host(
    site: web.Site, settings: Settings, target: str
) -> None:
    with proxy.serve(site.port, 407) as led, pytest.raises((OSError, network.aiohttp.ClientError)):
        ask(settings(proxy=led.place, resolve={}), target)
    with pytest.raises(OSError, match=str(led.port)):
        ask(settings(proxy=led.place, resolve={}), target)


def test_the_password_of_a_proxy_is_not_archived(site: web.Site, settings: Settings) -> None:
    site.page("a.example", "/", PAGE)
    with proxy.serve(site.port) as led:
        place = led.place.replace("//", "//user:secret@")
        answer = got(settings(proxy=place, resolve={}), "http://a.example/")
    assert "Proxy-Authorization: Basic" in led.heads[0]
    assert answer.request
    assert "proxy-authorization" not in {name.lower() for name, _ in answer.request.headers}


def test_a_crawl_goes_through_a_proxy_robots_txt_first(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.page("a.example", "/", PAGE)
    with proxy.serve(site.port) as led:
        config = settings(proxy=led.place, resolve={})
        row = crawl(config, tmp_path, "http://a.example/")["http://a.example/"]
    assert row["outcome"] == "ok"
    assert [line.split()[1] for line in led.asked] == [
        "http://a.example/robots.txt", "http://a.example/"
    ]  # fmt: skip
