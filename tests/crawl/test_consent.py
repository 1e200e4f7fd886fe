"""What sites say of the use of their pages for AI, where they say it, and what is obeyed."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import consent, content, metas, preferences, robots, warc
from crawl.config import SIGNALS, CrawlConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/robots.md").read_text("utf-8")
OWNERS = (ROOT / "docs/site-owners.md").read_text("utf-8")


def header(*pairs: tuple[str, str]) -> list[str]:
    return sorted(consent.of_headers(pairs, "webtext"))


def html(text: str | bytes) -> list[str]:
    return sorted(of_html(text))


def of_html(text: str | bytes) -> tuple[str, ...]:
    page = text.encode() if isinstance(text, str) else text
    return consent.of_html(lambda most: page[:most], "webtext")


# What is obeyed.


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("content-signal: ai-train=no", "content-signal"),
        ("header content-signal: ai-train=no", "content-signal"),
        ("content-usage: train-ai=n", "content-usage"),
        ("content-usage: bots=n", "content-usage"),
        ("header content-usage: train-genai=n", "content-usage"),
        ("x-robots-tag: noai", "noai"),
        ("meta: noai", "noai"),
        ("x-robots-tag: none", "noindex"),
        ("meta: noindex", "noindex"),
        ("tdm-reservation: 1", "tdm"),
        ("meta tdm-reservation: 1", "tdm"),
        ("tdmrep.json: 1", "tdm"),
    ],
)
def test_what_forbids_does_so_where_its_kind_is_obeyed(word: str, kind: str) -> None:
    assert consent.refused([word], SIGNALS) == word
    assert consent.refused([word], [name for name in SIGNALS if name != kind]) is None
    assert consent.FORBIDDING[word] == kind


@pytest.mark.parametrize(
    "word",
    [
        "content-signal: ai-train=yes", "content-signal: ai-input=no", "content-signal: search=no",
        "content-signal: use=reference", "content-usage: train-ai=y", "content-usage: search=n",
        "x-robots-tag: noimageai", "meta: index", "meta: all", "tdm-reservation: 0",
    ],
)  # fmt: skip
def test_what_is_of_another_use_or_permits_is_kept_and_forbids_nothing(word: str) -> None:
    assert word in consent.WORDS
    assert consent.refused([word], SIGNALS) is None


def test_the_stricter_of_two_counts() -> None:
    said = ["tdm-reservation: 0", "tdmrep.json: 1", "meta: noai"]
    assert consent.refused(said, SIGNALS) == "tdmrep.json: 1"
    assert consent.refused(said, ["noai"]) == "meta: noai"
    assert consent.refused(said, []) is None


def test_every_setting_has_words() -> None:
    assert set(consent.FORBIDDING.values()) == set(SIGNALS)


@given(st.sets(st.sampled_from(sorted(consent.WORDS))))
def test_a_column_holds_all_words_sorted(words: set[str]) -> None:
    text = consent.joined([*words, *words])
    assert consent.split(text) == tuple(sorted(words))
    assert (text is None) is not words or text is None


# Headers.


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("noai", ["noai"]),
        ("noindex, NoAI ,nofollow", ["noai", "noindex"]),
        ("none", ["none"]),
        ("noai, noimageai", ["noai", "noimageai"]),
        ("all", ["all"]),
        ("webtext: noai", ["noai"]),
        ("WebText/1.0: noindex, noai", ["noai", "noindex"]),
        ("otherbot: noai", []),
        ("otherbot: noindex, noai", []),
        ("noindex, otherbot: noai, webtext: none", ["noindex", "none"]),
        ("*: noai", ["noai"]),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", ["noai"]),
        ("unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noai", ["noai"]),
        ("max-snippet: -1, max-image-preview: none, noai", ["noai"]),
        ("otherbot: nofollow, max-snippet: 3, noai", []),
        ("noaip", []),
        ("", []),
        (":,:", []),
    ],
)
def test_x_robots_tag(value: str, said: list[str]) -> None:
    assert header(("X-ROBOTS-Tag", value)) == [f"x-robots-tag: {word}" for word in said]


def test_each_header_stands_for_itself() -> None:
    assert header(("X-Robots-Tag", "otherbot: noai"), ("X-Robots-Tag", "noindex")) == [
        "x-robots-tag: noindex"
    ]
    assert header(("Content-Type", "noai"), ("X-Robots", "noai")) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [("1", ["1"]), (" 0 ", ["0"]), ("1, 1", ["1"]), ("0, 1", ["0", "1"]), ("2", []), ("yes", []),
     ("", []), ("1;", [])],
)  # fmt: skip
def test_tdm_reservation(value: str, said: list[str]) -> None:
    assert header(("TDM-Reservation", value), ("tdm-policy", "https://a.test/policy.json")) == [
        f"tdm-reservation: {bit}" for bit in said
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("train-ai=n", ["train-ai=n"]),
        ("train-ai=n, search=y", ["search=y", "train-ai=n"]),
        ("train-ai=n,\tsearch=y", ["search=y", "train-ai=n"]),
        ("train-ai=n;reason=\"a, b\";x", ["train-ai=n"]),
        ("other=(1 2), train-ai=n", ["train-ai=n"]),
        ("train-ai=y, train-ai=n", ["train-ai=n"]),
        ("train-ai=n, train-ai=y", ["train-ai=y"]),
        ("train-ai=y, train-ai, search=n, search=\"n\"", []),
        ("train-ai;allow=n, train-ai=y", ["train-ai=y"]),
        ("train-ai;has;parameters=\"?\";", []),
        ("Train-AI=n", []),
        ("train-ai=N", []),
        ("train-ai=no", []),
        ("train-ai", []),
        ("train-ai=n,", []),
        ("train-ai=n search=y", []),
        ("train-ai=n, =y", []),
        ("nonsense=n", []),
        ("", []),
    ],
)  # fmt: skip
def test_content_usage_is_a_structured_dictionary(value: str, said: list[str]) -> None:
    assert header(("Content-Usage", value)) == [f"header content-usage: {pair}" for pair in said]
    line = preferences.line("content-usage", value)
    words = sorted(word for _, word in line.words) if line else []
    assert words == [f"content-usage: {pair}" for pair in said]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ai-train=no", ["ai-train=no"]),
        ("search=yes,ai-train=no,use=reference", ["ai-train=no", "search=yes", "use=reference"]),
        (" AI-Train = NO , ", ["ai-train=no"]),
        ("ai-train=yes, ai-train=no", ["ai-train=no", "ai-train=yes"]),
        ("ai-train=n", []),
        ("ai-train", []),
        ("train=no", []),
    ],
)
def test_content_signal(value: str, said: list[str]) -> None:
    assert header(("Content-Signal", value)) == [f"header content-signal: {pair}" for pair in said]


# Lines of robots.txt.


def signals(text: str, page: str) -> list[str]:
    rules = robots.verdict(200, f"User-agent: *\n{text}".encode(), "webtext")
    return sorted(rules.signals("http://a.test" + page))


def test_the_closest_path_speaks_and_the_stricter_of_equals_counts() -> None:
    text = (
        "Content-Signal: ai-train=no, search=yes\n"
        "Content-Signal: /open/* ai-train=yes\n"
        "Content-Signal: /open/but/ ai-train=no\n"
        "Content-Signal: /open/but/ ai-train=yes\n"
    )
    assert signals(text, "/x") == ["content-signal: ai-train=no", "content-signal: search=yes"]
    assert signals(text, "/open/x") == [
        "content-signal: ai-train=yes",
        "content-signal: search=yes",
    ]
    assert consent.refused(signals(text, "/open/but/x"), SIGNALS) == "content-signal: ai-train=no"


def test_a_path_alone_or_a_malformed_line_says_nothing() -> None:
    for value in ("/x", "", "/x nonsense", "train-ai", "=n"):
        assert signals(f"Content-Usage: {value}", "/x") == []
    assert signals("Content-Usage: /%7Ea/ train-ai=n # why", "/~a/b") == [
        "content-usage: train-ai=n"
    ]


# The page.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<meta name="robots" content="noindex, noai">', ["meta: noai", "meta: noindex"]),
        ("<META CONTENT='NOAI' NAME=ROBOTS />", ["meta: noai"]),
        ("<meta name=robots content=noai/>", ["meta: noai"]),
        ('<meta name="webtext" content="noai">', ["meta: noai"]),
        ('<meta name="googlebot" content="noai">', []),
        ('<meta name="robots" content="index,follow">', ["meta: index"]),
        ('<meta name="robots" content="noindex;noai nofollow">', ["meta: noai", "meta: noindex"]),
        ('<meta name="robots" content="max-image-preview: none">', []),
        ('<meta name="robots" content="&#110;oai">', ["meta: noai"]),
        ('<meta name="robots" data-x="a>b" content="noai">', ["meta: noai"]),
        ('<meta name="robots"\n\tcontent\n=\n"noai">', ["meta: noai"]),
        ('<meta name="robots" content="noai" content="all">', ["meta: noai"]),
        ('<meta name="tdm-reservation" content="1">', ["meta tdm-reservation: 1"]),
        ('<meta name="tdm-reservation" content="0">', ["meta tdm-reservation: 0"]),
        ('<meta name="tdm-reservation" content="2">', []),
        ('<meta name="tdm-policy" content="http://a.test">', []),
        ('<meta property="robots" content="noai">', []),
        ('<meta name="robots">', []),
        ('<meta content="noai">', []),
        ('<!-- <meta name="robots" content="noai"> -->', []),
        ('<!--> <meta name="robots" content="noai"> -->', ["meta: noai"]),
        ("<!--><title><!--</title><meta name=robots content=noai>", ["meta: noai"]),
        ('<!-- a --!> <meta name="robots" content="noai">', ["meta: noai"]),
        ('<!-- <script> --><meta name="robots" content="noai">', ["meta: noai"]),
        ('<script>"<meta name=robots content=noai>"</script>', []),
        ('<script>"<!--"</script><meta name=robots content=noai>', ["meta: noai"]),
        ('<title><meta name="robots" content="noai"></title>', []),
        ('<style></style ><meta name="robots" content="noai">', ["meta: noai"]),
        ('<template><meta name="robots" content="noai"></template>', []),
        ('<noscript><meta name="robots" content="noai"></noscript>', ["meta: noai"]),
        ('</head><meta name="robots" content="noai">', []),
        ('<body><meta name="robots" content="noai">', []),
        ('<header><meta name="robots" content="noai">', ["meta: noai"]),
        ('<metadata name="robots" content="noai">', []),
        ('<meta name="robots" content="noai"', []),
        ('<meta name="keywords" content="robots"><meta name="robots" content="noai">',
         ["meta: noai"]),
        ('<meta content="5" tall"><meta name="robots" content="noai">', ["meta: noai"]),
        ('<meta "><meta name="robots" content="noai">', ["meta: noai"]),
        ("<meta content=5'><meta name='robots' content='noai'>", ["meta: noai"]),
        ('<meta content = "><meta name=robots content=noai>', []),
        ('<bodyguard><meta name="robots" content="noai">', ["meta: noai"]),
        ("robots", []),
    ],
)  # fmt: skip
def test_meta_elements(text: str, said: list[str]) -> None:
    assert html(text) == said
    assert html(f"<!doctype html><html><head><title>é</title>{text}") == said
    assert html(text.encode("utf-16")) == said
    assert html(f"<head><style>{'x' * metas.START_BYTES}</style>{text}") == said


def test_a_page_without_a_name_of_ours_is_read_too() -> None:
    page = b"<meta name='' content=noai><meta name=robots content=noai>"
    assert consent.of_html(lambda most: page[:most], "") == ("meta: noai",)


@given(
    st.lists(
        st.sampled_from(
            ["<meta ", 'name="robots" ', "content=noai", ">", "<!--", "-->", "<script>", '"', "'",
             "</script>", "</head>", "<title>", "</title>", "<body>", "x", "<", "&#", "é", "\0"]
        ),
        max_size=30,
    ).map("".join)
)  # fmt: skip
def test_no_page_is_too_strange_whatever_pieces_it_is_read_in(text: str) -> None:
    whole = of_html(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metas, "START_BYTES", 1 + len(text) % 37)
        assert of_html(text) == whole
        assert html(text.encode("utf-16")) == html(text)
    assert set(whole) <= consent.WORDS


@pytest.mark.parametrize("before", [0, 10, metas.START_BYTES - 20, metas.START_BYTES, 200_000])
@pytest.mark.parametrize("fake", ["", "<script>'</head>'</script>", "<!-- <body> -->"])
def test_no_more_of_a_page_is_asked_for_than_its_head(before: int, fake: str) -> None:
    asked: list[int] = []
    head = f"<head>{fake}<style>{'x' * before}</style><meta name=robots content=noai></head>"
    page = (head + "<p>" * 400_000).encode()

    def first(most: int) -> bytes:
        asked.append(most)
        return page[:most]

    assert consent.of_html(first, "webtext") == ("meta: noai",)
    assert asked == [metas.START_BYTES * 2**n for n in range(len(asked))]
    assert asked[-1] <= max(metas.START_BYTES, 2 * len(head) + 100)


def test_a_head_that_ends_where_a_piece_does_is_seen_to_end() -> None:
    asked: list[int] = []
    page = b"x" * (metas.START_BYTES - 3) + b"</head>" + b"x" * 1_000_000

    def first(most: int) -> bytes:
        asked.append(most)
        return page[:most]

    assert consent.of_html(first, "webtext") == ()
    assert asked == [metas.START_BYTES, 2 * metas.START_BYTES]


def test_a_head_beyond_the_bound_is_read_to_it() -> None:
    noai = b"<meta name=robots content=noai>"
    style = b"<style>%s</style>"
    fits = style % (b"x" * (metas.HEAD_BYTES - len(style) - len(noai) + 2)) + noai
    assert len(fits) == metas.HEAD_BYTES
    assert of_html(fits + b" " * 1000) == ("meta: noai",)
    assert of_html(b" " + fits) == ()


@pytest.mark.parametrize(
    "piece",
    ["<meta ", "<meta a='>", "<meta robots>", "<!--", "<script ", "<title>", "<meta a= ", "robots",
     "<meta name=robots content=noai>", "</head", "<meta \"robots'"],
)  # fmt: skip
def test_hostile_pages_are_read_to_their_end(piece: str) -> None:
    # Were the time their square, this would take hours.
    page = (piece * metas.HEAD_BYTES)[: metas.HEAD_BYTES].encode() + b"robots"
    found = of_html(page)
    assert found == (("meta: noai",) if "noai" in piece else ())


def test_real_pages_say_what_a_parser_finds(data: Path) -> None:
    parser = pytest.importorskip("lxml.html")
    judged = 0
    for record in warc.records(str(data / "web" / "wcxb-dev.warc.zst"), 10**7):
        if record.answer is None or judged == 150:
            continue
        body = content.first(record.answer.body, record.answer.header("Content-Encoding"), 10**6)
        found = set(of_html(body))
        tree = parser.document_fromstring(body)
        words = {
            f"meta: {word}"
            for meta in tree.xpath("//head//meta[@content]")
            if meta.get("name", "").lower() == "robots"
            for word in meta.get("content").lower().replace(",", " ").split()
        }
        assert found == words & consent.WORDS
        judged += 1
    assert judged == 150


# /.well-known/tdmrep.json.


def reserved(rules: object, page: str) -> list[str]:
    found = consent.of_tdmrep(json.dumps(rules).encode())
    return list(found.signals("https://a.test" + page))


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        {"location": "/directory-a/", "tdm-reservation": 1},
        {"location": "/directory-b/images/*.jpg", "tdm-reservation": 0},
        {"location": "/directory-b/", "tdm-reservation": 1, "tdm-policy": "https://a.test/p.json"},
        {"location": "/this$", "tdm-reservation": 1},
    ]
    assert reserved(rules, "/directory-a/x") == ["tdmrep.json: 1"]
    assert reserved(rules, "/directory-b/images/x.jpg") == ["tdmrep.json: 0"]
    assert reserved(rules, "/directory-b/x") == ["tdmrep.json: 1"]
    assert reserved(rules, "/this") == ["tdmrep.json: 1"]
    assert reserved(rules, "/this/not") == [] == reserved(rules, "/")


@pytest.mark.parametrize(
    ("value", "said"),
    [(1, ["tdmrep.json: 1"]), (0, ["tdmrep.json: 0"]), ("1", ["tdmrep.json: 1"]),
     (True, ["tdmrep.json: 1"]), (False, ["tdmrep.json: 0"]), (2, []), (None, []), ([1], [])],
)  # fmt: skip
def test_a_reservation_is_zero_or_one(value: object, said: list[str]) -> None:
    assert reserved([{"location": "/", "tdm-reservation": value}], "/x") == said


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"1", b'"x"', b"[1, null, [], {}]", b"[" * 200_000, b"\xff\xfe", b"<html>",
     b'{"location": "/", "tdm-reservation": 1}', b'[{"location": 1, "tdm-reservation": 1}]',
     b'[{"tdm-reservation": 1}]', b"9" * 5000],
)  # fmt: skip
def test_what_is_no_tdmrep_reserves_nothing(body: bytes) -> None:
    assert consent.of_tdmrep(body).signals("https://a.test/x") == ()


def test_locations_may_hold_any_character() -> None:
    rules = [
        {"location": "/é", "tdm-reservation": 1},
        {"location": "/\ud800", "tdm-reservation": 1},
    ]
    assert reserved(rules, "/%C3%A9") == ["tdmrep.json: 1"]
    assert consent.of_tdmrep(b"\xef\xbb\xbf" + json.dumps(rules).encode()).rules


def test_what_takes_too_long_to_follow_is_taken_for_reserved() -> None:
    rules = [{"location": f"/*a{n}*b", "tdm-reservation": 0} for n in range(3000)]
    assert reserved(rules, "/x") == ["tdmrep.json: 1"]
    assert reserved(rules[:2000], "/x") == []


def test_where_it_stands() -> None:
    assert consent.tdm_location("https://A.test:443/x") == "https://a.test/.well-known/tdmrep.json"


# The pages that say all this.


def test_the_page_lists_every_word_and_says_what_forbids() -> None:
    section = PAGE.partition("## What sites say of AI\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\| ([^|]*) \|$", section, re.MULTILINE)
    assert {word for word, _ in rows} == consent.WORDS and len(rows) == len(consent.WORDS)
    forbidding = {word: kind.strip("`") for word, kind in rows if kind}
    assert forbidding == consent.FORBIDDING


def test_what_owners_are_told_is_what_the_settings_are() -> None:
    config = CrawlConfig()
    for told in (
        f"{config.min_delay_s:g} second",
        f"{config.latency_factor:g} times",
        f"{config.max_delay_s:g} seconds",
        f"{config.max_retry_after_s / 3600:g} hour",
        f"{robots.CACHE_S / 3600:g} hours",
        f"{config.max_pages_per_host:,} pages",
        f"{robots.MAX_REDIRECTS} redirects",
    ):
        assert told in OWNERS, told
    assert config.obey == SIGNALS


def test_the_examples_for_owners_do_what_they_say() -> None:
    examples = re.findall(r"```text\n(.*?)```", OWNERS, re.DOTALL)
    shut, part, slow, *said = [text.replace("NAME", "webtext") for text in examples]
    page = "https://a.test/page"
    assert not robots.verdict(200, shut.encode(), "webtext").allows(page)
    assert robots.verdict(200, shut.encode(), "another").allows(page)
    assert not robots.verdict(200, part.encode(), "webtext").allows("https://a.test/private/x")
    assert robots.verdict(200, part.encode(), "webtext").allows(page)
    assert robots.verdict(200, slow.encode(), "webtext").crawl_delay_s() == 10
    lines, headers, elements, file = said
    for line in lines.strip().splitlines()[1:]:
        rules = robots.verdict(200, f"User-agent: *\n{line}".encode(), "webtext")
        assert consent.refused(rules.signals(page), SIGNALS), line
    for line in headers.strip().splitlines():
        name, _, value = line.partition(": ")
        assert consent.refused(consent.of_headers(((name, value),), "webtext"), SIGNALS), line
    for line in elements.strip().splitlines():
        assert consent.refused(of_html(line), SIGNALS), line
    assert consent.refused(consent.of_tdmrep(file.encode()).signals(page), SIGNALS)
