"""Why a link is not followed, whatever its karma: what it is, or where it leads.

The scalar `refusal` is the definition; `reasons` says the same of a column, looking at each
different host once.
"""

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawl import url
from crawl.config import CrawlConfig
from crawl.schema import LinkOutcome

MAX_URL_CHARACTERS = 2048
"""Longer ones are refused by servers (RFC 9110 asks for 8,000; many stop at 2,048) or are data."""
DOMAIN_FILE = Path(__file__).with_name("refused_domains.txt")
FILE_TYPES = frozenset(
    [
        *("jpg", "jpeg", "jpe", "png", "gif", "gifv", "webp", "bmp", "svg", "ico", "tif", "tiff"),
        *("psd", "heic", "avif", "mp3", "mp4", "m4a", "m4v", "ogg", "ogv", "oga", "opus", "wav"),
        *("flac", "aac", "wma", "avi", "mov", "mpg", "mpeg", "wmv", "mkv", "webm", "flv", "swf"),
        *("pdf", "ps", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "epub", "mobi", "csv"),
        *("zip", "gz", "tgz", "bz2", "xz", "7z", "rar", "tar", "jar", "apk", "exe", "msi", "dmg"),
        *("iso", "deb", "rpm", "bin", "torrent", "ttf", "woff", "css", "js", "json", "xml", "rss"),
    ]
)
ENDS_LIKE_A_FILE = rf"(?i)\.(?:{'|'.join(sorted(FILE_TYPES))})(?:[?#]|$)"
"""True of more than those whose path does: what it finds is looked at closely."""
PLAIN_HOST = "^[a-z0-9.-]*[a-z0-9-]$"


def refusal(fetch_url: str, config: CrawlConfig) -> LinkOutcome | None:
    """Why a URL is not followed; None where nothing speaks against it."""
    if len(fetch_url) > MAX_URL_CHARACTERS:
        return LinkOutcome.OVER_LONG
    if url.has_credentials(fetch_url):
        return LinkOutcome.CREDENTIALS
    if reason := _host_reason(url.host(fetch_url), config):
        return reason
    _, dot, ending = url.path(fetch_url).rpartition("/")[2].rpartition(".")
    if dot and ending.lower() in FILE_TYPES:
        return LinkOutcome.FILE_TYPE
    return None


def reasons(fetch_urls: pa.Array, config: CrawlConfig) -> pa.Array:
    """`refusal` of every fetch URL of a column, as text."""
    authorities = _authorities(fetch_urls).dictionary_encode()
    names, codes = authorities.dictionary, authorities.indices.to_numpy()
    plain = pc.match_substring_regex(names, PLAIN_HOST).to_numpy(zero_copy_only=False)
    by_name = [
        _host_reason(name, config) if is_plain else None
        for name, is_plain in zip(names.to_pylist(), plain, strict=True)
    ]
    found = np.array(by_name, object)[codes]
    close = ~plain[codes]
    close |= pc.greater(pc.binary_length(fetch_urls), MAX_URL_CHARACTERS).to_numpy(False)
    close |= pc.match_substring_regex(fetch_urls, ENDS_LIKE_A_FILE).to_numpy(False)
    for place in np.flatnonzero(close):
        found[place] = refusal(fetch_urls[place].as_py(), config)
    return pa.array(found, pa.string())


def hosts(fetch_urls: pa.Array) -> pa.Array:
    """`url.host` of every fetch URL of a column."""
    authorities = _authorities(fetch_urls)
    plain = pc.match_substring_regex(authorities, PLAIN_HOST)
    others = fetch_urls.filter(pc.invert(plain)).to_pylist()
    return pc.replace_with_mask(
        authorities, pc.invert(plain), pa.array([url.host(one) for one in others], pa.string())
    )


def _authorities(fetch_urls: pa.Array) -> pa.Array:
    """What stands between the scheme and the next slash: the host, where it is plain."""
    parts = pc.split_pattern(fetch_urls, "/", max_splits=3)
    return pc.list_element(parts, 2)


def _host_reason(name: str, config: CrawlConfig) -> LinkOutcome | None:
    if url.is_address(name) or url.is_local(name):
        return LinkOutcome.PRIVATE_HOST
    labels = name.split(".")
    for start in range(len(labels)):
        domain = ".".join(labels[start:])
        if domain in config.followed_domains:
            return None
        if domain in config.refused_domains:
            return LinkOutcome.REFUSED_DOMAIN
        if reason := _listed().get(domain):
            return reason
    return None


@functools.cache
def _listed() -> dict[str, LinkOutcome]:
    lines = DOMAIN_FILE.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {domain: LinkOutcome(reason) for domain, reason in pairs}
