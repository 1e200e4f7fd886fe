"""The embedded web's server: every behaviour as seen by a plain socket client."""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from pipeline.demo import server
from pipeline.demo.answers import Answer, Site, moved, page, robots, typed, zipped

SITE = Site(
    {
        "www.a.test": {
            "/robots.txt": robots("User-agent: *\nDisallow:\n"),
            "/x": page("<p>hello</p>"),
            "/y/": page("<p>slash</p>"),
            "/i?id=7": page("<p>seven</p>"),
            "/i?id=": page("<p>none</p>"),
            "/slow": page("<p>late</p>", behaviour="slow"),
            "/hang": page("", behaviour="hang"),
            "/drop": page("", behaviour="drop"),
            "/reset": page("", behaviour="reset"),
            "/cut": page("0123456789", behaviour="cut"),
            "/garbage": page("", behaviour="garbage"),
            "/endless": typed("text/html", b"x" * 4096, "too_large", "endless"),
            "/zip": zipped("<p>packed</p>"),
            "/go": moved("/x"),
        },
        "b.test": {"/x": page("<p>other</p>")},
    }
)


@pytest.fixture(scope="module")
def served() -> Iterator[server.Served]:
    with server.serve(SITE) as running:
        yield running


def get(served: server.Served, host: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(served.address, timeout=5)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


@pytest.mark.parametrize(
    ("host", "path", "body"),
    [
        ("www.a.test", "/x", b"<p>hello</p>"),
        ("a.test:80", "/x/", b"<p>hello</p>"),
        ("A.TEST", "/x?utm_source=n&utm_medium=m", b"<p>hello</p>"),
        ("www.a.test", "/y", b"<p>slash</p>"),
        ("www.a.test", "/i?utm_x=1&id=7", b"<p>seven</p>"),
        ("www.a.test", "/i?fbclid=1&id=7&gclid=2", b"<p>seven</p>"),
        ("www.a.test", "/i?id=", b"<p>none</p>"),
        ("b.test", "/x", b"<p>other</p>"),
        ("www.b.test", "/x", b"<p>other</p>"),
        ("www.a.test", "/slow", b"<p>late</p>"),
    ],
)
def test_finds_the_page_by_host_under_every_spelling(
    served: server.Served, host: str, path: str, body: bytes
) -> None:
    assert get(served, host, path) == (200, body)


def test_what_is_nowhere_is_404(served: server.Served) -> None:
    assert get(served, "c.test", "/x")[0] == 404
    assert get(served, "b.test", "/robots.txt")[0] == 404


def test_a_redirect_names_its_target(served: server.Served) -> None:
    connection = http.client.HTTPConnection(served.address, timeout=5)
    connection.request("GET", "/go", headers={"Host": "a.test"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, "/x")
    connection.close()


def test_one_connection_serves_many_requests(served: server.Served) -> None:
    connection = http.client.HTTPConnection(served.address, timeout=5)
    for path in ("/x", "/y", "/x"):
        connection.request("GET", path, headers={"Host": "a.test"})
        assert connection.getresponse().read()
    connection.close()


def test_only_the_head_is_sent_where_only_the_head_is_asked_for(served: server.Served) -> None:
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"HEAD /x HTTP/1.1\r\nHost: a.test\r\n\r\n")
        client.sendall(b"GET /garbage HTTP/1.1\r\nHost: a.test\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"Content-Length: 12\r\n" in answers
    assert b"<p>" not in answers


def test_a_cut_body_is_shorter_than_promised(served: server.Served) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(served, "a.test", "/cut")
    assert caught.value.partial == b"01234"


def test_a_dropped_connection_says_nothing(served: server.Served) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        get(served, "a.test", "/drop")


def test_a_reset_connection_is_reset(served: server.Served) -> None:
    with pytest.raises(ConnectionResetError):
        get(served, "a.test", "/reset")


def test_garbage_is_no_http(served: server.Served) -> None:
    with pytest.raises(http.client.BadStatusLine):
        get(served, "a.test", "/garbage")


def test_an_endless_body_outlasts_its_reader(served: server.Served) -> None:
    connection = http.client.HTTPConnection(served.address, timeout=5)
    connection.request("GET", "/endless", headers={"Host": "a.test"})
    answer = connection.getresponse()
    assert answer.headers["Content-Length"] is None
    assert len(answer.read(8 << 20)) == 8 << 20
    connection.close()


def test_a_hanging_page_gives_no_byte_and_the_log_has_the_request(served: server.Served) -> None:
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: a.test\r\n\r\n")
        ends = time.monotonic() + 60
        while ("a.test", "/hang") not in {(r.host, r.path) for r in list(served.requests)}:
            assert time.monotonic() < ends, "the request is not in the log"
            time.sleep(0.01)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_the_log_is_in_the_order_of_time() -> None:
    with server.serve(SITE) as running:
        for path in ("/x", "/y", "/slow"):
            get(running, "a.test", path)
        times = [request.at for request in running.requests]
        assert [request.path for request in running.requests] == ["/x", "/y", "/slow"]
    assert times == sorted(times)


def test_a_taken_port_is_said_and_a_left_one_is_free_again() -> None:
    with server.serve(SITE) as running:
        port = int(running.address.split(":")[1])
        with pytest.raises(OSError, match=r"(?i)address already in use"), server.serve(SITE, port):
            pass
    with server.serve(SITE, port) as again:
        assert get(again, "b.test", "/x") == (200, b"<p>other</p>")


def test_ends_with_a_client_still_hanging() -> None:
    with server.serve(SITE) as running:
        host, port = running.address.split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: a.test\r\n\r\n")
    client.settimeout(5)
    with contextlib.suppress(ConnectionResetError):  # as good an end as a closed stream
        assert client.recv(1) == b""
    client.close()


def test_statuses_come_as_they_are() -> None:
    teapot = Answer(503, (("Content-Type", "text/plain"),), b"later", "http_error")
    with server.serve(Site({"s.test": {"/": teapot}})) as running:
        assert get(running, "s.test", "/") == (503, b"later")
