"""The hosts that make trouble: so many that every outcome of a crawl occurs at least once.

Rule: each host here has a fixed answer for each address; what takes articles takes them from the
iterator it is given.
"""

from collections.abc import Callable, Iterator

from pipeline.demo.answers import (
    Answer,
    Fate,
    Site,
    failed,
    moved,
    page,
    robots,
    typed,
    zipped,
)
from pipeline.demo.articles import Article
from pipeline.demo.layouts import LAYOUTS
from pipeline.demo.tongues import FRENCH, TONGUES

Articles = Iterator[Article]
Paths = dict[str, Answer]

_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
_PICTURE_ONLY = (
    "<!DOCTYPE html><html><head><title>Poster</title></head><body>"
    "<img src='/poster.png'><script>show('poster')</script></body></html>"
)
_MENU_ONLY = (
    "<!DOCTYPE html><html><head><title>Welcome</title></head><body><nav><ul>"
    "<li><a href='/a'>Products</a></li><li><a href='/b'>Prices</a></li></ul></nav>"
    "<form action='/enter'><input name='age'><button>Enter</button></form></body></html>"
)


def _written(host: str, article: Article, fate: Fate = "text") -> Answer:
    layout = LAYOUTS[len(host) % len(LAYOUTS)]
    return page(layout(host, article.title, article.html, [("/", "Front page")]), fate)


def _pages(host: str, articles: Articles, count: int, folder: str, fate: Fate = "text") -> Paths:
    return {
        f"{folder}{number}.html": _written(host, next(articles), fate)
        for number in range(1, count + 1)
    }


def slow(host: str, articles: Articles, scale: int) -> Paths:
    """Every page comes after a while; none is late."""
    answers = _pages(host, articles, 3 * scale, "/essays/")
    return {
        path: Answer(one.status, one.headers, one.body, one.fate, "slow")
        for path, one in answers.items()
    }


def walled(host: str, articles: Articles, scale: int) -> Paths:
    """robots.txt forbids everything."""
    rules = robots("User-agent: *\nDisallow: /\n")
    return {"/robots.txt": rules} | _pages(host, articles, 4 * scale, "/inside/", "robots")


def gated(host: str, articles: Articles, scale: int) -> Paths:
    """robots.txt forbids one folder and opens one page in it."""
    rules = "# mind the gate\nUser-agent: *\nDisallow: /private/\nAllow: /private/1.html\n"
    shut = _pages(host, articles, 2 * scale, "/private/", "robots")
    shut["/private/1.html"] = _written(host, next(articles))
    return {
        "/robots.txt": robots(rules),
        **_pages(host, articles, 3 * scale, "/open/"),
        **shut,
    }


def faulty(host: str, articles: Articles, scale: int) -> Paths:
    """robots.txt fails: RFC 9309, 2.3.1.4 says to keep out."""
    rules = robots("<h1>Internal error</h1>", status=500)
    return {"/robots.txt": rules} | _pages(host, articles, 3 * scale, "/notes/", "robots")


def unhurried(host: str, articles: Articles, scale: int) -> Paths:
    """robots.txt asks for a second between requests."""
    rules = robots("User-agent: *\nCrawl-delay: 1\nDisallow:\n")
    return {"/robots.txt": rules} | _pages(host, articles, 2 * scale, "/letters/")


def failing(host: str, articles: Articles, scale: int) -> Paths:
    """Pages that are gone, forbidden or always in error."""
    answers: Paths = {f"/status/{code}": failed(code) for code in (403, 404, 410, 500, 503)}
    return answers | _pages(host, articles, scale, "/fine/")


def silent(host: str, articles: Articles, scale: int) -> Paths:
    """One page never answers; one ends the connection, one resets it."""
    return {
        "/never": page("", "timeout", "hang"),
        "/closed": page("", "broken", "drop"),
        "/reset": page("", "unreachable", "reset"),
        **_pages(host, articles, scale, "/heard/"),
    }


def torn(host: str, articles: Articles, scale: int) -> Paths:
    """A body that ends half-way, bytes that are no HTTP, a body without end."""
    whole = _written(host, next(articles))
    return {
        "/half": Answer(200, whole.headers, whole.body, "broken", "cut"),
        "/noise": page("", "broken", "garbage"),
        "/endless": typed("text/html", b"<p>and so on and on</p>\n" * 512, "too_large", "endless"),
        **_pages(host, articles, scale, "/mended/"),
    }


def shapes(host: str, articles: Articles, scale: int) -> Paths:
    """Other content types, other codings, other charsets, pages with nothing to read."""
    latin = "text/html; charset=iso-8859-1"
    plain, packed = next(articles), next(articles)
    del scale
    return {
        "/paper": typed("application/pdf", _PDF, "not_html"),
        "/picture": typed("image/png", _PNG, "not_html"),
        "/data": typed("application/json", b'{"rows": [1, 2, 3]}', "not_html"),
        "/blank": typed("text/html", b"", "no_text"),
        "/poster": page(_PICTURE_ONLY, "no_text"),
        "/menu": page(_MENU_ONLY, "too_short"),
        "/short": _written(host, Article("own", "short", "Soon", "<p>More soon.</p>"), "too_short"),
        "/packed": zipped(LAYOUTS[1](host, packed.title, packed.html, [])),
        "/cafe": typed(latin, _latin(host, plain), "text"),
        "/poste": typed("text/html", _latin(host, FRENCH), "not_english"),
    }


def _latin(host: str, article: Article) -> bytes:
    """The page in ISO 8859-1, with a sentence that only that charset reads right; it names itself
    in a meta tag."""
    html = f"{article.html}\n<p>Read at the café, where the crème brûlée is à la carte.</p>"
    text = LAYOUTS[0](host, article.title, html, [])
    text = text.replace('<meta charset="utf-8">', '<meta charset="iso-8859-1">')
    return text.encode("iso-8859-1", errors="xmlcharrefreplace")


def moving(host: str, articles: Articles, scale: int) -> Paths:
    """Redirects: to a page here, over two hops, in a circle, to another site."""
    del scale
    return {
        "/old/report": moved("/new/report.html"),
        "/new/report.html": _written(host, next(articles)),
        "/first": moved("/second", status=302),
        "/second": moved(f"http://{host}/third?lang=en", status=307),
        "/third?lang=en": _written(host, next(articles)),
        "/round": moved("/and-round", "redirect_loop"),
        "/and-round": moved("/round", "redirect_loop", 302),
        "/elsewhere": moved("http://slow-letters.test/essays/1.html", "offsite"),
    }


def tongues(host: str, articles: Articles, scale: int) -> Paths:
    """Pages in other languages, and one English page among them."""
    answers = {f"/{one.key}/": _written(host, one, "not_english") for one in TONGUES}
    return answers | _pages(host, articles, scale, "/en/")


ODD_HOSTS: dict[str, Callable[[str, Articles, int], Paths]] = {
    "slow-letters.test": slow,
    "www.walled-garden.test": walled,
    "gated-park.test": gated,
    "faulty-gate.test": faulty,
    "www.unhurried-reader.test": unhurried,
    "failing-shelves.test": failing,
    "silent-harbour.test": silent,
    "torn-pages.test": torn,
    "www.many-shapes.test": shapes,
    "moving-house.test": moving,
    "three-tongues.test": tongues,
}


def odd_hosts(articles: Articles, scale: int) -> Site:
    """All of them; `scale` multiplies their ordinary pages."""
    return Site({host: make(host, articles, scale) for host, make in ODD_HOSTS.items()})
