"""Keys of captures are those that pywb's indexer gives."""

import json

import pytest
import surt
from hypothesis import example, given
from hypothesis import strategies as st

from crawl import cdxj, url
from crawl.warc import Place

SESSION = "0123456789abcdef0123456789ABCDEF"
PIECES = st.sampled_from(
    ["/", "//", ".", "..", "/../", "%2F", "%25", "%41", "%c3%a9", "%", "a", "B", "~", "&", "=",
     "a=1", f"sid={SESSION}", "&cfid=1&cftoken=2", f"jsessionid={SESSION}", f"PHPSESSID={SESSION}",
     "ASPSESSIONIDabcdefgh=abcdefghijklmnopqrstuvwx", "(0123456789abcdef01234567)/",
     "(a(0123456789abcdef01234567))/", "x.aspx", "+", "'", "(", ")", ";", "%00", "%23", "%3F", "[",
     "|", "\\"]
)  # fmt: skip
HOSTS = st.sampled_from(
    ["a.com", "www.a.com", "WWW3.b.co.uk", "www.www.x.org", "a.com:80", "a.com:8080", "u:p@a.com",
     "a.com.", "a..com", "xn--mnchen-3ya.de", "1.2.3.4", "017.1", "3", "1.2", "a-b.c_d.com",
     "%41.com", "a.com:443", "a.com:", "[2001:db8::1]", "[::1]:90", "http://a.com", "www.com"]
)  # fmt: skip


@given(
    st.sampled_from(["http", "https"]),
    HOSTS,
    st.lists(PIECES, max_size=8).map("".join),
    st.none() | st.lists(PIECES, max_size=8).map("".join),
    st.sampled_from(["", "#part", "#"]),
)
@example("http", "a.com", "", "", "")
def test_a_key_is_what_pywb_makes_of_the_address(
    scheme: str, host: str, path: str, query: str | None, rest: str
) -> None:
    target = f"{scheme}://{host}" + (f"/{path}" if path else "")
    target += ("" if query is None else f"?{query}") + rest
    assert cdxj.surt(target) == surt.surt(target)


@given(st.text(max_size=30))
def test_a_key_of_whatever_can_be_asked_for_is_pywbs(text: str) -> None:
    target = url.fetch_url("http://a.com/" + text)
    if target:
        assert cdxj.surt(target) == surt.surt(target)


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("http://www.Example.co.uk:80/A/./b/../C/?b=2&a=1#x", "uk,co,example)/a/c?a=1&b=2"),
        ("https://example.com", "com,example)/"),
        ("http://example.com:8080/%C3%A9", "com,example:8080)/%c3%a9"),
        ("http://999.1.2.3/", "3,2,1,999)/"),
    ],
)
def test_keys(target: str, key: str) -> None:
    assert cdxj.surt(target) == key


def test_what_has_no_host_has_no_key() -> None:
    with pytest.raises(ValueError, match="is no URL with a host"):
        cdxj.surt("mailto:x@a.com")


@pytest.mark.parametrize(
    ("said", "kind"),
    [("text/html", "text/html"), (" a/b ; c=d", "a/b"), ("a/b;c", "a/b"), ("", "unk")],
)
def test_a_type_has_no_parameters(said: str, kind: str) -> None:
    assert cdxj.mime(said) == kind


def test_a_line_says_where_a_record_is() -> None:
    place = Place(1234, 99, "x.warc.gz", "sha1:ABC")
    line = cdxj.line("http://a.com/x", "2016-05-04T03:02:01.123Z", "text/html", 404, place)
    key, moment, said = line.split(" ", 2)
    assert (key, moment) == ("com,a)/x", "20160504030201")
    assert list(json.loads(said).items()) == [
        ("url", "http://a.com/x"),
        ("mime", "text/html"),
        ("status", "404"),
        ("digest", "ABC"),
        ("length", "99"),
        ("offset", "1234"),
        ("filename", "x.warc.gz"),
    ]
    assert "status" not in cdxj.line("http://a.com/x", "2016", cdxj.REVISIT, None, place)
