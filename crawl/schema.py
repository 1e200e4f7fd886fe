"""The rows of the crawl's datasets, and every outcome that a row can have.

The world fails in one of the ways listed here, each a row; we fail with an exception. Rows of
links, pages, documents and signals are sorted by their id and name it once. `VOLATILE` columns
record when and where work was done: they are no part of a dataset's content.
"""

import datetime
from enum import StrEnum

import msgspec
import pyarrow as pa


class BadInput(ValueError):
    """The user gave something unusable. One line that names the setting or the file."""


class LeftOut(StrEnum):
    """Why a line of a dump yields no submission."""

    MALFORMED = "malformed"
    """Not JSON, or not the object that a submission is."""
    PROMOTED = "promoted"
    """An advertisement."""
    SELF = "self"
    """Text on Reddit; it links nowhere."""
    REMOVED = "removed"
    """Taken away by moderators, by Reddit, or by a claim."""
    DELETED = "deleted"
    """Taken away by its author."""
    OVER_18 = "over_18"
    GALLERY = "gallery"
    REDDIT_MEDIA = "reddit_media"
    """A picture or a film that Reddit itself hosts."""
    SUBREDDIT = "subreddit"
    """Not among `subreddits`, or among `refused_subreddits`."""
    NO_SCORE = "no_score"
    NO_URL = "no_url"
    NO_DATE = "no_date"
    RELATIVE_URL = "relative_url"
    """A crosspost that names its parent on Reddit, not the page."""
    BAD_URL = "bad_url"
    """Not an http(s) URL that could be asked for."""
    BEFORE_SINCE = "before_since"
    AFTER_UNTIL = "after_until"
    NOT_SAMPLED = "not_sampled"
    REPEATED = "repeated"
    """The same post once more in the same file, or the same line of a list."""
    TRUNCATED = "truncated"
    """One for each dump that ends too early, where `accept_truncated` lets it pass."""


class LinkOutcome(StrEnum):
    """What becomes of a link."""

    KEPT = "kept"
    BELOW_KARMA = "below_karma"
    REDDIT = "reddit"
    MEDIA = "media"
    """A site of pictures, sound or film."""
    FILE_TYPE = "file_type"
    """The path ends like a file that is no web page."""
    REFUSED_DOMAIN = "refused_domain"
    CREDENTIALS = "credentials"
    """The URL carries a user name or a password."""
    PRIVATE_HOST = "private_host"
    """An IP address, a single label, or a name of a local network."""
    OVER_LONG = "over_long"


class PageOutcome(StrEnum):
    """How asking for a link ended."""

    OK = "ok"
    HTTP_ERROR = "http_error"
    NOT_HTML = "not_html"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS_ERROR = "tls_error"
    PROTOCOL_ERROR = "protocol_error"
    """The answer is not HTTP, or breaks off."""
    ROBOTS_DISALLOWED = "robots_disallowed"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    """The robots.txt could not be had, which forbids everything (RFC 9309, 2.3.1.4)."""
    REDIRECT_LOOP = "redirect_loop"
    """More redirects than `max_redirects`, or back to where it came from, over other domains."""
    REDIRECTED_OFFSITE = "redirected_offsite"
    PRIVATE_ADDRESS = "private_address"
    """The host stands in a private network (RFC 6890)."""
    OPTED_OUT = "opted_out"
    """The site says that its pages are not to be used so, in a way that `obey` names."""
    DENIED = "denied"
    """The operator's list of hosts and patterns that are not to be asked."""
    OVER_HOST_BUDGET = "over_host_budget"
    """Beyond `max_pages_per_host`, which is derived when selecting, or beyond `max_host_s`."""
    NOT_ARCHIVED = "not_archived"
    """No archive has it and `live` is false. Derived when selecting, never observed."""


class DocumentOutcome(StrEnum):
    """What extraction made of a page."""

    OK = "ok"
    NO_PAGE = "no_page"
    EMPTY = "empty"
    """No main text was found."""
    TOO_LARGE = "too_large"
    UNDECODABLE = "undecodable"
    """The Content-Encoding could not be undone."""
    TIMEOUT = "timeout"
    CRASH = "crash"
    """The child process died, or ran out of memory, over this page."""


class Capture(StrEnum):
    """What becomes of a record of an archive, or of a row of an index of captures."""

    COPIED = "copied"
    ALREADY = "already"
    """The ledger holds this very capture."""
    NO_LINK = "no_link"
    NOT_RESPONSE = "not_response"
    REVISIT = "revisit"
    NOT_200 = "not_200"
    UNREADABLE = "unreadable"
    """A record, or a row, that is torn, not what its form asks for, or too long."""
    NOT_HTML = "not_html"
    """A row of an index whose media type is no page's."""
    FARTHER = "farther"
    """A row of an index: another capture is nearer to the link's first post."""
    MISSING = "missing"
    """The archive that an index names is not there."""
    CUT_OFF = "cut_off"
    """The archive ends before the record that an index names does."""
    OTHER_RECORD = "other_record"
    """Where an index says, another page or another content stands."""


OUTCOMES: dict[str, tuple[str, ...]] = {
    "submissions": tuple(LeftOut),
    "links": tuple(LinkOutcome),
    "pages": tuple(PageOutcome),
    "documents": tuple(DocumentOutcome),
}

ID = pa.binary(16)
NOW = pa.timestamp("ms", tz="UTC")

SUBMISSIONS = pa.schema(
    [
        pa.field("link_id", ID, nullable=False),
        pa.field("url_key", pa.string(), nullable=False),
        pa.field("fetch_url", pa.string(), nullable=False),
        pa.field("post_id", pa.string(), nullable=False),
        # the post that this one shows once more in another subreddit
        pa.field("crosspost_of", pa.string()),
        # null: the URL stands in a plain list, which vouches for it; it counts as `min_karma`
        pa.field("score", pa.int32()),
        pa.field("day", pa.date32()),
        pa.field("subreddit", pa.string()),
    ]
)

LINKS = pa.schema(
    [
        pa.field("link_id", ID, nullable=False),
        pa.field("url_key", pa.string(), nullable=False),
        pa.field("fetch_url", pa.string(), nullable=False),
        pa.field("host", pa.string(), nullable=False),
        pa.field("karma", pa.int64(), nullable=False),
        pa.field("submissions", pa.list_(pa.string()), nullable=False),
        pa.field("subreddits", pa.list_(pa.string()), nullable=False),
        pa.field("first_seen", pa.date32()),
        pa.field("outcome", pa.string(), nullable=False),
    ]
)

PAGES = pa.schema(
    [
        pa.field("link_id", ID, nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("status", pa.int16()),
        pa.field("final_url", pa.string()),
        pa.field("content_type", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("digest", pa.string()),
        pa.field("fetched_at", NOW),
        pa.field("elapsed_s", pa.float64()),
        pa.field("warc_file", pa.string()),
        pa.field("warc_offset", pa.int64()),
        pa.field("warc_length", pa.int64()),
        # what the site says of use for AI, sorted, joined by "; ": `crawl/consent.py` has the words
        pa.field("ai_signals", pa.string()),
        # from the day of the link's first post to that of the capture
        pa.field("days_from_post", pa.int32()),
    ]
)

OBSERVATIONS = pa.schema(
    [
        pa.field("link_id", ID, nullable=False),
        pa.field("url_key", pa.string(), nullable=False),
        *PAGES.remove(PAGES.get_field_index("days_from_post")).remove(0),
        # how it was asked: the user agent, or the name of the archive
        pa.field("asked", pa.string()),
        # the text depends on it too: without it, nothing could choose between two captures
        pa.field("content_encoding", pa.string()),
    ]
)

CANDIDATES = pa.schema(
    [
        pa.field("link_id", ID, nullable=False),
        pa.field("first_seen", pa.date32()),
        # what was asked for, as the index has it
        pa.field("url", pa.string(), nullable=False),
        pa.field("captured_at", NOW, nullable=False),
        # the index knows that the body is not all that was sent
        pa.field("is_truncated", pa.bool_(), nullable=False),
        pa.field("digest", pa.string()),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)

CHOSEN = pa.schema([pa.field("file_id", ID, nullable=False), *CANDIDATES])

RESPONSE_COLUMNS = ("digest", "final_url", "outcome", "status", "content_type", "content_encoding",
                    "bytes", "ai_signals")  # fmt: skip
"""What two captures of one moment can differ in and a page or its text depends on."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One row of OBSERVATIONS."""

    link_id: bytes
    url_key: str
    url: str
    outcome: PageOutcome
    source: str
    status: int | None = None
    final_url: str | None = None
    content_type: str | None = None
    bytes: int | None = None
    digest: str | None = None
    fetched_at: datetime.datetime
    elapsed_s: float | None = None
    warc_file: str | None = None
    warc_offset: int | None = None
    warc_length: int | None = None
    ai_signals: str | None = None
    asked: str | None = None
    content_encoding: str | None = None


DOCUMENTS = pa.schema(
    [
        pa.field("document_id", ID, nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("title", pa.string()),
        pa.field("author", pa.string()),
        pa.field("date", pa.string()),
        pa.field("extractor", pa.string()),
    ]
)

# Shares lie between 0 and 1; what each one measures stands in `crawl/signals.py`.
SIGNALS = pa.schema(
    [
        pa.field("document_id", ID, nullable=False),
        pa.field("characters", pa.int64(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("lines", pa.int64(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_score", pa.float32(), nullable=False),
        pa.field("mean_word_length", pa.float32(), nullable=False),
        pa.field("alphabetic_share", pa.float32(), nullable=False),
        pa.field("digit_share", pa.float32(), nullable=False),
        pa.field("symbol_share", pa.float32(), nullable=False),
        pa.field("stop_word_share", pa.float32(), nullable=False),
        pa.field("duplicate_line_share", pa.float32(), nullable=False),
        pa.field("top_3gram_share", pa.float32(), nullable=False),
        pa.field("bullet_line_share", pa.float32(), nullable=False),
        pa.field("ellipsis_line_share", pa.float32(), nullable=False),
    ]
)

VOLATILE: dict[str, tuple[str, ...]] = {
    "submissions": (),
    "links": (),
    "pages": (
        "fetched_at",
        "elapsed_s",
        "warc_file",
        "warc_offset",
        "warc_length",
        "days_from_post",
    ),
    "documents": (),
    "signals": (),
}
