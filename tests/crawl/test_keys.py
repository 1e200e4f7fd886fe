"""A column of texts gets what each text would get alone, whichever way it takes."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawl import canonical, keys, streams, url
from crawl.schema import ID

WORD = st.text(alphabet="abcXYZ019_-~.,!'()*+$=:@[]", max_size=6)
PLAIN_HOST = st.sampled_from(
    [
        *("a.com", "www.a.com", "m.www.a.co.uk", "blog.a.com", "someone.github.io", "co.uk"),
        *("google.com", "www.google.com", "news.google.com", "mobile.nytimes.com", "youtube.com"),
        *("l.facebook.com", "www.facebook.com", "out.reddit.com", "href.li", "vk.com", "a--b.com"),
        *("x.blogspot.de", "x.blogspot.co.uk", "www.deviantart.com", "t.www.umblr.com", "127.1"),
        *("b-com.cdn.ampproject.org", "localhost", "_a.b.com", "www.com", "steamcommunity.com"),
    ]
)
ODD_HOST = st.sampled_from(
    [
        *("A.com", "WWW.a.COM", "a.com.", "a..com", "-a.com", "a-.com", ".a.com", "b\u00fccher.de"),
        *("127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[1::G]", "u@a.com", "u:p@a.com", "", "."),
        *("a.com:80", "a.com:0443", "a.com:8080", "a.com:0", "a.com:99999", "a.com:", "a b.com"),
        *("a" * 63 + ".com", "a" * 64 + ".com", "\u4f8b\u3048.jp", "a.com\\x", "m.amp.A.com"),
        *(
            "a." * 126 + "a",
            "a." * 126 + "com",
            "a." * 150 + "com",
            "xn--a.com",
            "xn--bcher-kva.de",
        ),
    ]
)
SIGN = st.sampled_from(
    [
        *("%20", "%2F", "%3F", "%26", "%3D", "%25", "%C3%A9", "%23", "%25%32%30", "%7C", "%5B"),
        *("/", "//", "/a", "/b-c", "&", "=", "?", "#", ":", "@", "id=1", "&p=2", "q=a", "+", "'"),
    ]
)
ODD_SIGN = st.sampled_from(
    [
        *("%2f", "%c3", "%61", "%7E", "%2E", "%2", "%", "%zz", "%00", "%21", "%2c", "%5f", "%5F"),
        *("/.", "/..", "/../", "/.x", "/amp", "/AMP/", "/a-b/amp", ".amp", ".amp.html", "amp=1"),
        *("&amp;", "&amp;amp;", "&lt;", "&#38;", "&#x26;", "&quot;", "&am", "p;", ";", "amp;", "&"),
        *("#!", "#!/x", "#/", "#/x/", "??", "?&", "\\", " ", "\t", "\n", "\x00", "\x7f", "<", "|"),
        *("\u00e9", "\u2603", "\u212a", "\u0130", "\uff0f", "\ufffd", "\U0001f600", "^", "`", '"'),
        *(";jsessionid=1", ";PHPSESSID=2/", "&utm_source=x", "?UTM_x", "&fbclid=1", "&ref=1"),
        *("&feature=x", "&src=x", "&m=1", "&q=http://b.com/", "?url=http%3A%2F%2Fb.com%2Fx-y"),
        *("/url?q=", "/l.php?u=", "/amp/s/", "/redirect?url=", "http://", "https%3A%2F%2Fb.com"),
    ]
)
SHORT = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https"]),
    PLAIN_HOST,
    st.one_of(
        st.just(""), st.lists(st.one_of(WORD, SIGN), max_size=6).map("".join).map("/".__add__)
    ),
)
LONG = st.builds(
    "{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP://", " http://", "http:/", "ftp://", "//", ""]),
    st.one_of(PLAIN_HOST, ODD_HOST),
    st.lists(st.one_of(WORD, SIGN, ODD_SIGN), max_size=7).map("".join),
)
VERY_LONG = st.builds(
    lambda head, size: head + "x" * (url.MAX_CHARACTERS + size - len(head)),
    st.sampled_from(
        ["http://a.com/", "http://a.com/?x=1&amp;y=", "http://a.com/\u00e9", "HTTP://a.com/"]
    ),
    st.integers(-7, 2),
)
ANY = st.one_of(SHORT, LONG, SHORT, LONG, VERY_LONG, st.text(max_size=9), st.none())


def expected(texts: list[str | None]) -> list[tuple[bytes | None, str | None, str | None]]:
    """One row after another, by the functions that say what is right."""
    rows: list[tuple[bytes | None, str | None, str | None]] = []
    for text in texts:
        asked = url.fetch_url(text) if text is not None else None
        if asked is None:
            rows.append((None, None, None))
        else:
            key = canonical.url_key(asked)
            rows.append((canonical.link_id(key), key, canonical.unwrapped(asked)))
    return rows


def found(texts: pa.Array) -> list[tuple[bytes | None, str | None, str | None]]:
    columns = keys.of(texts)
    assert [column.type for column in columns] == [ID, pa.string(), pa.string()]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


@given(st.lists(ANY, max_size=12).flatmap(lambda some: st.permutations(some + some[:3])))
@example([])
@example(["http://t.www.umblr.com/redirect?z=http://b.com/"])
@example([None])
@example(["", None, ""])
@example(["http://a.com", "http://a.com/", "http://a.com?x", "http://a.com#x", "http://a.com/?"])
@example(["http://a.com/?x=1&amp;y=2", "http://a.com/?x=1&amp;amp;y=2", "http://a.com/?y=2&x=1"])
@example(["http://a.com/x\n", "http://a.com/x\r\n", "\ufeffhttp://a.com/x", "http://a.com/x\u2028"])
@example(["http://www.google.com/urls?q=http://b.com/", "http://google.com/url/?q=http://b.com/"])
@example(["http://a.com/x?&a=1", "http://a.com/x?b&a=1&b=&a=0", "http://a.com/x?=1&=0"])
def test_a_column_is_its_rows(texts: list[str | None]) -> None:
    assert found(pa.array(texts, pa.string())) == expected(texts)


@given(st.lists(SHORT, min_size=1, max_size=12))
def test_a_column_of_plain_texts_is_its_rows(texts: list[str]) -> None:
    assert found(pa.array(texts, pa.string())) == expected(texts)


@given(st.lists(ANY, max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_a_slice_is_its_rows_alone(texts: list[str | None], start: int, size: int) -> None:
    column = pa.array(texts, pa.string()).slice(min(start, len(texts)), size)
    assert found(column) == expected(column.to_pylist())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_columns_of_every_kind_of_text_are_read(kind: pa.DataType) -> None:
    texts = ["http://a.com/x", None, "HTTP://www.A.com/x/", "none"]
    assert found(pa.array(texts, kind)) == expected(texts)


def test_a_column_of_nulls_is_null() -> None:
    assert found(pa.nulls(3)) == [(None, None, None)] * 3


def test_both_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short way that nothing takes would pass every other test of this file."""
    asked: list[str] = []

    def key_of(text: str) -> str:
        asked.append(text)
        return url_key(text)

    url_key = canonical.url_key
    monkeypatch.setattr(canonical, "url_key", key_of)
    short = [
        "http://a.com/x?b=1&amp;a=2#c",
        "https://www.a.com/%20",
        "http://google.com/search?q=x",
    ]
    long = [
        "http://a.com/%7Ex",
        "http://a.com:80/",
        "http://google.com/url?q=x",
        "http://a.com/#!x",
    ]
    found(pa.array([*short, *long], pa.string()))
    assert sorted(asked) == sorted(url.fetch_url(text) or "" for text in long)


def test_every_address_of_the_dumps_is_as_by_rows(data: Path) -> None:
    folder = data / "reddit"
    texts: list[str | None] = []
    for path in [*sorted(folder.glob("RS_*")), folder / "mixed_era_submissions.ndjson"]:
        with streams.open_decoded(str(path)) as stream:
            for line in stream:
                try:
                    post = json.loads(line)
                except ValueError:
                    continue
                texts += [post.get(name) for name in ("url", "url_overridden_by_dest")]
    assert len(texts) > 20_000
    assert found(pa.array(texts, pa.string())) == expected(texts)
