"""The form of a URL that decides sameness, and the id that is made of it.

`url_key` forgets what does not select the page. It is idempotent, and the key of the fetch URL of a
key is that key. Ids depend on nothing but the key and the pinned data files that `SCHEME` names.
`crawl/keys.py` does the same for whole columns.
"""

import functools
import re
from collections.abc import Iterable
from hashlib import blake2b, sha256
from pathlib import Path
from urllib.parse import unquote

from crawl.url import (
    HOSTS,
    SUFFIX_FILE,
    decoded,
    fetch_url,
    host,
    is_address,
    registrable_domain,
    repaired,
    split,
)

TRACKING_FILE = Path(__file__).with_name("tracking.txt")
WRAPPERS_FILE = Path(__file__).with_name("wrappers.txt")
FILES = (SUFFIX_FILE, TRACKING_FILE, WRAPPERS_FILE)
SCHEME = "2-" + sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()[:16]
"""Version of the id scheme and digest of its data files. A change makes all ids anew."""
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
SAME_ESCAPED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!'()*,"
)
"""RFC 3986's unreserved characters, and those that some libraries escape and others do not."""
ROUTE = re.compile(r"#[!/].+", re.DOTALL)
"""A fragment that selects content: of a page that its own script puts together."""
SESSION = re.compile(r";(?:jsessionid|phpsessid)=[^/]*", re.IGNORECASE)
VARIANTS = frozenset({"www", "m", "mobile", "amp"})
"""Labels of a host, above its registrable domain, that serve the same pages in another dress."""
BLOGSPOT = re.compile(r"(.+)\.blogspot\.(?:com?\.)?[a-z]{2}")
AMP_NAMES = frozenset({"amp", "outputtype"})
AMP = re.compile(r"amp=(?:1|true)?|amp|outputtype=amp", re.IGNORECASE)
ARTICLE = re.compile(r"[^/]*(?:[-_.]|[0-9]{5})[^/]*")
"""A segment that names an article: `amp` after it is its dress, elsewhere a page of that name."""
# What is left of an ampersand that was escaped once too often, at the head of a parameter.
ENTITY_REST = re.compile(r"(?:\?|(?:amp|lt|gt|quot|apos);)+")


def url_key(url: str) -> str:
    """The canonical form of a fetch URL: equal keys are the same page.

    Insensitive to the scheme, `www.`, `m.`, `mobile.` and `amp.`, Blogspot's countries, the default
    ports, fragments that are no route (`#!`, `#/`), trailing slashes, dot segments, session ids,
    tracking parameters (`tracking.txt`), AMP's marks, the order of parameters and the spelling of
    escapes; what only sends a reader on is its target (`unwrapped`). The key is itself a URL, with
    `http` for a scheme. Raises ValueError for what `fetch_url` would not return.
    """
    key = _key(unwrapped(url))
    while (target := unwrapped(key)) != key:  # in its plainer spelling, it is seen to send on
        key = _key(target)
    return key


def unwrapped(url: str) -> str:
    """The fetch URL that a fetch URL sends its reader on to, where it is one of `wrappers.txt`, as
    often as that is so; else itself."""
    while target := _target(url):
        url = target
    return url


def link_id(key: str) -> bytes:
    """The 16 bytes of a link: 4 of its registrable domain, then 12 of its key (BLAKE2b)."""
    return domain_id(host(key)) + page_ids([key.encode()])[0]


@functools.lru_cache(maxsize=HOSTS)
def domain_id(name: str) -> bytes:
    """The first 4 bytes of the ids of all links to a host and its whole registrable domain."""
    return blake2b(registrable_domain(name).encode(), digest_size=4).digest()


def page_ids(keys: Iterable[bytes]) -> list[bytes]:
    """The last 12 bytes of the id of each link."""
    return [blake2b(key, digest_size=12).digest() for key in keys]


@functools.lru_cache(maxsize=HOSTS)
def key_host(name: str) -> str:
    """A host without the labels that serve the same pages in another dress."""
    if found := BLOGSPOT.fullmatch(name):
        name = f"{found.group(1)}.blogspot.com"
    domain = registrable_domain(name)
    if name == domain or is_address(name):
        return name
    above = name.removesuffix(f".{domain}").split(".")
    return ".".join([*(label for label in above if label not in VARIANTS), domain])


def selecting(parameters: Iterable[str], name: str) -> str:
    """The query of those parameters, spelt as in a key, that select a page of this host; with its
    question mark, unless none does."""
    bare = (one.lstrip("?") for one in parameters)
    kept = [one for one in bare if one and not _is_tracking(one, name)]
    # A stable sort by name: the order of one name's values can mean something.
    kept.sort(key=_name)
    return "?" + "&".join(kept) if kept else ""


@functools.lru_cache(maxsize=HOSTS)
def wrapping(name: str) -> tuple[tuple[str, str], ...]:
    """Of a host's addresses that only send a reader on: the beginning of the path, and where the
    target stands."""
    labels = name.split(".")
    above = [".".join(labels[start:]) for start in range(len(labels))]
    above.append(registrable_domain(name).partition(".")[0] + ".*")
    return tuple(pair for domain in above for pair in _wrappers().get(domain, ()))


def _key(url: str) -> str:
    user, name, port, path, query, fragment = split(url)
    name = key_host(name)
    shown = f"[{name}]" if ":" in name else name
    where = f"{user}@{shown}" if user else shown
    if port and int(port) not in (80, 443):
        where = f"{where}:{int(port)}"
    route = spelled(fragment).rstrip("/")
    shown = route if ROUTE.fullmatch(route) else ""
    return f"http://{where}{_path_key(path)}{_query_key(query, name)}{shown}"


def _path_key(text: str) -> str:
    kept: list[str] = []
    for segment in SESSION.sub("", spelled(text)).split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return _without_amp(("/" + "/".join(kept)).rstrip("/"))


def _without_amp(path: str) -> str:
    while True:
        head, _, last = path.rpartition("/")
        if last.lower() == "amp" and ARTICLE.fullmatch(head.rpartition("/")[2]):
            path = head.rstrip("/")
        elif last.lower().endswith((".amp", ".amp.html")) and not last.startswith("."):
            path = path[:-4] if last.lower().endswith(".amp") else path[:-9] + path[-5:]
        else:
            return path


def _query_key(text: str, name: str) -> str:
    parts = (
        ENTITY_REST.sub("", part, count=1) if ENTITY_REST.match(part) else part
        for part in spelled(text.lstrip("?")).split("&")
    )
    return selecting(parts, name)


def spelled(text: str) -> str:
    """One spelling of escapes: none for unreserved characters, capitals for the others."""
    while (plainer := repaired(decoded(ESCAPE.sub(_escape, text)))) != text:
        text = plainer
    return text


def _escape(found: re.Match[str]) -> str:
    byte = int(found.group(1), 16)
    return chr(byte) if byte in SAME_ESCAPED else found.group().upper()


def _is_tracking(parameter: str, name: str) -> bool:
    key = _name(parameter).lower()
    if _is_tracking_anywhere(key) or (key in AMP_NAMES and AMP.fullmatch(parameter)):
        return True
    local = _tracking()[2]
    return key in local and any(below(name, domain) for domain in local[key])


@functools.lru_cache(maxsize=65536)
def _is_tracking_anywhere(key: str) -> bool:
    exact, prefixes, _ = _tracking()
    return key in exact or key.startswith(prefixes)


def _name(parameter: str) -> str:
    return parameter.partition("=")[0]


@functools.cache
def _tracking() -> tuple[frozenset[str], tuple[str, ...], dict[str, list[str]]]:
    """Names, beginnings of names, and names that count on certain domains alone."""
    exact, prefixes, local = set[str](), [], dict[str, list[str]]()
    for key, *domains in _table(TRACKING_FILE):
        if domains:
            local.setdefault(key, []).append(domains[0])
        elif key.endswith("*"):
            prefixes.append(key[:-1])
        else:
            exact.add(key)
    return frozenset(exact), tuple(prefixes), local


def _target(url: str) -> str | None:
    """One step of `unwrapped`; None where the URL sends nobody on."""
    _, name, _, path, query, _ = split(url)
    path = path or "/"
    for begins, where in wrapping(name):
        if path.startswith(begins) and (begins.endswith("/") or path.rstrip("/") == begins):
            text = _held(path[len(begins) :], query[1:], where)
            if text and (target := fetch_url(text)) and len(target) < len(url):
                return target
    return None


def _held(rest: str, query: str, where: str) -> str | None:
    if where == "?":
        return unquote(query) if query[:4].lower() == "http" else None
    if where in ("/", "/s"):
        tail = f"{rest}?{query}" if query else rest
        return f"http{where[1:]}://{tail}" if "." in rest.partition("/")[0] else None
    found = dict(part.partition("=")[::2] for part in reversed(query.split("&")))
    return next((unquote(found[name]) for name in where.split(",") if found.get(name)), None)


@functools.cache
def _wrappers() -> dict[str, list[tuple[str, str]]]:
    """By domain, or the name of one under any public suffix, what `wrapping` tells."""
    found: dict[str, list[tuple[str, str]]] = {}
    for domain, begins, where in _table(WRAPPERS_FILE):
        found.setdefault(domain, []).append((begins, where))
    return found


def below(name: str, domain: str) -> bool:
    """Whether a host is this domain or one under it."""
    return name == domain or name.endswith(f".{domain}")


def _table(path: Path) -> list[list[str]]:
    lines = path.read_text("utf-8").splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]
