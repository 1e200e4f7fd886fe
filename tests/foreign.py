"""A web archive of another crawler's: written by warcio, with whatever dates and words it likes."""

import io
from typing import IO

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from crawl import warc


def write(
    file: IO[bytes],
    target: str,
    date: str,
    answer: warc.Answer,
    *,
    request: warc.Request | None = None,
    truncated: str | None = None,
) -> None:
    """Appends a response, after its request where there is one."""
    writer = WARCWriter(file, gzip=True, warc_version="1.1")
    headers = {"WARC-Date": date} | ({"WARC-Truncated": truncated} if truncated else {})
    sent = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    response = writer.create_warc_record(
        target,
        "response",
        payload=io.BytesIO(answer.body),
        http_headers=StatusAndHeaders(f"{answer.status} {answer.reason}", sent, answer.protocol),
        warc_headers_dict=headers,
    )
    if request:
        asked = StatusAndHeaders(request.line, list(request.headers), is_http_request=True)
        writer.write_record(
            writer.create_warc_record(
                target,
                "request",
                payload=io.BytesIO(),
                http_headers=asked,
                warc_headers_dict={"WARC-Date": date},
            )
        )
    writer.write_record(response)
