"""What an answer makes of a link: where it sends, how it ends, what it says of AI, its row.

Pure: an exchange and a job in, a row out.
"""

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from crawl import canonical, consent, content, metas, url
from crawl.config import Signal
from crawl.schema import Observation, PageOutcome
from crawl.warc import Answer, Exchange
from crawl.work import Page

USABLE = frozenset({PageOutcome.OK, PageOutcome.TOO_LARGE})
"""Outcomes of pages whose use their sites may refuse: a body that was not read counts as cut."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Asked:
    """Who asked, as it stands in every row."""

    user_agent: str

    def text(self, page: Page) -> str:
        """How a page was asked for: a target that was handed over names itself and its hops."""
        told: dict[str, str | int] = {"user_agent": self.user_agent}
        if page.hops or page.start != url.requested(page.url):
            told |= {"start": page.start, "hops": page.hops}
        return json.dumps(told)


def passes(status: int) -> bool:
    """Whether another attempt may go better."""
    return status == 429 or 500 <= status < 600


def redirect(base: str, answer: Answer) -> str | None:
    """Where an answer sends to, as it is to be requested; "" where that cannot be asked for, or
    only with a password; None where it sends nowhere."""
    location = answer.header("Location")
    if answer.status not in REDIRECTS or not location:
        return None
    return url.led_to(base, location) or ""


def same_site(one: str, other: str) -> bool:
    """Whether two addresses have one owner: one registrable domain."""
    domain = url.registrable_domain
    return bool(other) and domain(url.host(one)) == domain(url.host(other))


def of_answer(exchange: Exchange) -> PageOutcome:
    """How an answer that is no redirect ends its page."""
    answer = exchange.answer
    kind, coding = answer.header("Content-Type"), answer.header("Content-Encoding")
    cut = exchange.truncated is not None
    return content.outcome(answer.status, kind, coding, answer.body, cut=cut)


def signals(answer: Answer, token: str, outcome: PageOutcome) -> tuple[str, ...]:
    """What a page itself says of its use for AI: its headers, and the head of its markup."""
    found = consent.of_headers(answer.headers, token)
    if outcome not in USABLE:
        return found
    coding = answer.header("Content-Encoding")
    try:
        page = content.Opened(answer.body, coding, metas.HEAD_BYTES)
        return (*found, *consent.of_html(page.first, token))
    except content.Undecodable:
        return found


def plain(answer: Answer, most: int) -> bytes:
    """The decoded body of a success, at most so many bytes; of anything else nothing."""
    if not 200 <= answer.status < 300:
        return b""
    try:
        return content.first(answer.body, answer.header("Content-Encoding"), most)
    except content.Undecodable:
        return b""


def row(
    page: Page,
    outcome: PageOutcome,
    *,
    asked: Asked,
    moment: datetime.datetime,
    elapsed_s: float | None = None,
    exchange: Exchange | None = None,
    said: Iterable[str] = (),
) -> Observation:
    """The row of a link's outcome; `said` is what was read of its use for AI. The digest of its
    answer is told by the place where it is archived."""
    answer = exchange.answer if exchange else None
    return Observation(
        link_id=page.link_id,
        url_key=canonical.url_key(page.url),
        url=page.url,
        outcome=outcome,
        source="live",
        status=answer.status if answer else None,
        final_url=page.target,
        content_type=answer.header("Content-Type") if answer else None,
        content_encoding=answer.header("Content-Encoding") if answer else None,
        bytes=len(answer.body) if answer else None,
        fetched_at=moment,
        elapsed_s=elapsed_s,
        ai_signals=consent.joined(said),
        asked=asked.text(page),
    )


def refused(said: Sequence[str], obey: Sequence[str]) -> bool:
    """Whether a site does not want its page used so."""
    return consent.refused(said, obey) is not None  # type: ignore[arg-type]


def obeyed(rows: pa.Table, obey: Sequence[Signal]) -> pa.Table:
    """The rows with the outcome `opted_out` where what a site says of AI forbids its use."""
    said = pc.unique(rows["ai_signals"]).to_pylist()
    forbidding = [text for text in said if consent.refused(consent.split(text), obey)]
    out = pc.and_(
        pc.is_in(rows["ai_signals"], value_set=pa.array(forbidding, pa.string())),
        pc.is_in(rows["outcome"], value_set=pa.array([one.value for one in USABLE])),
    )
    at = rows.schema.get_field_index("outcome")
    outcome = pc.if_else(out, PageOutcome.OPTED_OUT.value, rows["outcome"])
    return rows.set_column(at, rows.schema.field(at), outcome)
