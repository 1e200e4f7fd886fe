"""Answers of the loopback web, as whole bytes: as they should be, and as they should not."""

import gzip

HTML = "text/html; charset=utf-8"


def response(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: bool = True
) -> bytes:
    """A whole HTTP/1.1 answer."""
    fields = {"Content-Type": HTML} | (headers or {})
    if length:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Reason\r\n{head}\r\n".encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """An answer that sends elsewhere."""
    return response(status, b"", {"Location": location})


def gzipped(html: str) -> bytes:
    """A page whose Content-Encoding is gzip."""
    body = gzip.compress(html.encode(), mtime=0)
    return response(200, body, {"Content-Encoding": "gzip"})


def chunked(html: str, size: int = 7) -> bytes:
    """A page that comes in chunks."""
    data = html.encode()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return response(200, body, {"Transfer-Encoding": "chunked"}, length=False)
