"""Where a request may go, and how hosts are pinned."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from crawl import addresses, url

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::a00:1", False),
        ("::127.0.0.1", False),
        ("::8.8.8.8", False),
        ("::ffff:0:127.0.0.1", False),
        ("2001:db8::1", False),
        ("2001:0:7f00:1::", False),
        ("2001:20::1", False),
        ("2002:a00:1::1", False),
        ("2002:808:808::1", False),
        ("fec0::1", False),
        ("100::1", False),
        ("5f00::1", False),
        ("3fff::1", False),
        ("192.0.0.1", False),
        ("198.18.0.1", False),
        ("192.88.99.1", False),
        ("192.31.196.1", False),
        ("240.0.0.1", False),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public


def test_a_machine_is_offline_where_no_way_leads_out(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [
        "unshare", "--user", "--map-root-user", "--net",
        sys.executable, "-c", "from crawl import addresses; print(addresses.is_offline())",
    ]  # fmt: skip
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone[:4], "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user may not make a network of his own")
    told = subprocess.run(alone, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told == "True\n"
    monkeypatch.setattr(addresses, "FAR", (*addresses.FAR, (socket.AF_INET, "127.0.0.1")))
    assert not addresses.is_offline()


def test_pins_are_matched_by_scheme_and_by_the_longest_name() -> None:
    pins = addresses.pinned(
        {
            "*.web.test": "127.0.0.1:1",
            "https://*.web.test": "127.0.0.1:2",
            "*.b.web.test": "127.0.0.1:3",
            "a.web.test": "[::1]:4",
        }
    )

    def where(host: str, port: int) -> int | None:
        return next((pin.address_port for pin in pins if pin.fits(host, port)), None)

    assert where("x.web.test", 80) == 1
    assert where("x.web.test", 443) == 2
    assert where("x.b.web.test", 80) == 3
    assert where("a.web.test", 80) == 4
    assert where("web.test", 80) is None
    assert where("evilweb.test", 80) is None


@given(st.text().map("http://a.com/".__add__))
@example("http://a.com/x?")
@example("http://a.com/x?#")
@example("http://a.com/x??")
@example("http://a.com/x?a?")
def test_every_fetch_url_can_be_asked_as_it_is(text: str) -> None:
    asked = url.requested(url.fetch_url(text) or "http://a.com/")
    assert str(URL(asked, encoded=True)) == asked
