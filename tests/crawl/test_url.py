"""What makes two URLs the same page, and what is asked for."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawl import canonical, url

URLISH = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["http://", "https://", "HTTP://"]),
        st.sampled_from(["", "www.", "www.www.", "u:p@"]),
        st.sampled_from(["a.com", "Bücher.de", "x.co.uk", "co.uk", "127.0.0.1", "[::1]", "b.org."]),
        st.sampled_from(["", ":80", ":0443", ":8080"]),
        st.text(alphabet="/.%2eF;=&?amp#:@ \\é<[a", max_size=24).map(lambda rest: "/" + rest),
    ),
)


@given(st.one_of(URLISH, st.text(), st.text().map("http://a.com/".__add__)))
@example("http://a.com/?amp;&a")
@example("http://a.com/&%61mp;")
@example("http://a.com/a/..//")
@example("http://a.com:080/")
@example("http://a.com/%2%35")
@example("http://a.com/\ud800")
@example("http://[1::2]:99999/")
@example("http://a.com:\uff18\uff10/x")
def test_forms_are_stable_for_any_text(text: str) -> None:
    asked = url.fetch_url(text)
    if asked is None:
        return
    assert url.fetch_url(asked) == asked
    assert asked.isascii() and not any(c.isspace() for c in asked)
    key = canonical.url_key(asked)
    assert canonical.url_key(key) == key
    again = url.fetch_url(key)
    assert again is not None and canonical.url_key(again) == key
    assert len(canonical.link_id(key)) == 16


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://a.com/?x=1&amp;y=2", "http://a.com/?x=1&y=2"),
        ("http://a.com/?x=1&amp;amp;y=2", "http://a.com/?x=1&y=2"),
        ("http://a.com/?a=1&copy=2", "http://a.com/?a=1&copy=2"),
        (" http://a.com/a b\n", "http://a.com/a%20b"),
        ("http://a.com/caf\u00e9?q=\u2603", "http://a.com/caf%C3%A9?q=%E2%98%83"),
        ("http://a.com/100%", "http://a.com/100%25"),
        ("http://a.com/%7Euser%2fx", "http://a.com/%7Euser%2fx"),
        ("http://a.com/a\\b", "http://a.com/a/b"),
        ("HTTPS://B\u00fccher.De/X", "https://xn--bcher-kva.de/X"),
        ("http://A.com/#!/deep", "http://A.com/#!/deep"),
        ("http://a.com", "http://a.com"),
        ("ftp://a.com/", None),
        ("/r/pics/comments/1", None),
        ("", None),
        ("http://", None),
        ("http://a..com/", None),
        ("http://a.com:99999/", None),
        ("http://exa mple.com/", None),
        ("http://" + "a" * 64 + ".com/", None),
    ],
)
def test_fetch_url_repairs_and_refuses(text: str, asked: str | None) -> None:
    assert url.fetch_url(text) == asked


@pytest.mark.parametrize(
    "same",
    [
        "https://example.com/a/b",
        "http://www.example.com/a/b/",
        "http://EXAMPLE.com:80/a/b",
        "https://example.com:443/a/./c/../b",
        "http://example.com./a/%62#part",
        "http://example.com/a/b?utm_source=x&fbclid=1",
        "http://example.com/a/b;jsessionid=AA?",
        "http://example.com/a/b?PHPSESSID=0a1b&jsessionid=2c",
    ],
)
def test_spellings_of_one_page_share_a_key(same: str) -> None:
    assert canonical.url_key(same) == "http://example.com/a/b"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.com/x", "http://a.com/X"),
        ("http://a.com/?id=1", "http://a.com/?id=2"),
        ("http://a.com/?ref=1", "http://a.com/"),
        ("http://a.com/?p=5", "http://a.com/"),
        ("http://a.com/?_gallery=5", "http://a.com/"),
        ("http://a.com:8080/", "http://a.com/"),
        ("http://blog.a.com/", "http://a.com/"),
        ("http://a.com/a%2Fb", "http://a.com/a/b"),
        ("http://a.com/?t=1&t=2", "http://a.com/?t=2&t=1"),
    ],
)
def test_different_pages_keep_different_keys(one: str, other: str) -> None:
    assert canonical.url_key(one) != canonical.url_key(other)


def test_order_of_parameters_does_not_matter() -> None:
    assert canonical.url_key("http://a.com/?b=2&a=1") == canonical.url_key("http://a.com/?a=1&b=2")


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("news.bbc.co.uk", "bbc.co.uk"),
        ("someone.github.io", "someone.github.io"),
        ("a.someone.github.io", "someone.github.io"),
        ("www.com", "www.com"),
        ("co.uk", "co.uk"),
        ("10.0.0.1", "10.0.0.1"),
        ("localhost", "localhost"),
    ],
)
def test_registrable_domain(name: str, domain: str) -> None:
    assert url.registrable_domain(name) == domain


def test_www_is_kept_where_it_is_the_registered_name() -> None:
    assert canonical.url_key("http://www.co.uk/") == "http://www.co.uk"


def test_ids_of_one_domain_lie_together() -> None:
    ids = [
        canonical.link_id(canonical.url_key(f"http://{h}.example.com/{n}"))
        for h in "ab"
        for n in range(3)
    ]
    assert len(set(ids)) == 6
    assert len({one[:4] for one in ids}) == 1
    assert ids[0][:4] != canonical.link_id(canonical.url_key("http://example.org/"))[:4]


def test_id_scheme_is_pinned() -> None:
    assert canonical.link_id("http://example.com/a") == bytes.fromhex(
        "4264a51b696b7dadce29052eed9816e6"
    )
    assert canonical.SCHEME.startswith("2-")


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "127.1", "0x7f.1", "2130706433"])
def test_every_notation_of_an_address_is_seen(name: str) -> None:
    assert url.is_address(name)


def test_host_and_origin() -> None:
    assert url.host("https://U:p@WWW.Example.COM.:8443/x") == "www.example.com"
    assert url.host("http://[::1]:80/") == "::1"
    assert url.origin("https://Example.com:443/x") == "https://example.com"
    assert url.origin("http://Example.com:443/x") == "http://example.com:443"
    assert url.has_credentials("http://u@a.com/") and not url.has_credentials("http://a.com/u@")


def test_text_that_is_too_long_is_no_url() -> None:
    most = url.MAX_CHARACTERS - len("http://a.com/")
    assert url.fetch_url("http://a.com/" + "x" * most) is not None
    assert url.fetch_url("http://a.com/" + "x" * (most + 1)) is None
    # what grows beyond the bound when it is repaired is none either: the form stays stable
    assert url.fetch_url("http://a.com/" + "\u00e9" * 3000) is None
    # decoded one level after another, this would take a minute
    assert url.fetch_url("http://a.com/?&" + "amp;" * 200_000) is None
    assert url.fetch_url("http://a.com/?&" + "amp;" * 2000) == "http://a.com/?&"
