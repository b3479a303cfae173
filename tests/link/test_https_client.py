"""Answers that end early, and downloads that go to disk whatever the connection does."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sflam.errors import BrokenOff, Refused, ServeError
from sflam.link.https_client import Link
from sflam.link.job import fetch

CONTENT = bytes(range(256)) * 2000
CUTS = [0, 100_000, 300_001]
"""Bytes after which the first answers break off."""


class Breaking(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, the first times only a part of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        if self.path.endswith("missing"):
            body = b'{"error": "no such file"}'
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if server.cuts:
            self.wfile.write(CONTENT[: server.cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        with contextlib.suppress(OSError):  # a client that has enough goes away
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    made.cuts = list(CUTS)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.links = []
    yield made
    for link in made.links:
        link.close()
    made.shutdown()
    made.server_close()
    thread.join(10)


def linked(server: Any) -> Link:
    link = Link(f"http://127.0.0.1:{server.server_port}", "sflam_x", patience=30, sleep=lambda seconds: None)
    server.links.append(link)
    return link


def test_an_answer_that_ends_early_is_asked_for_again(server: Any) -> None:
    assert linked(server).call("GET", "/v1/files/a") == CONTENT
    assert not server.cuts


def test_a_download_is_whole_however_often_it_broke_off(server: Any) -> None:
    file = io.BytesIO()
    assert linked(server).download("/v1/files/a", file) == hashlib.sha256(CONTENT).hexdigest()
    assert file.getvalue() == CONTENT and not server.cuts
    assert linked(server).call("GET", "/v1/files/a") == CONTENT  # the next request is none


def test_a_download_is_read_in_pieces(server: Any) -> None:
    class Sink(io.BytesIO):
        largest = 0

        def write(self, piece: Any) -> int:
            self.largest = max(self.largest, len(piece))
            return super().write(piece)

    file = Sink()
    linked(server).download("/v1/files/a", file)
    assert 0 < file.largest <= 1 << 16


def test_a_refused_download_writes_nothing(server: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no such file"):
        fetch(linked(server), tmp_path, "missing", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_download_beyond_what_was_agreed_ends(server: Any) -> None:
    server.cuts.clear()
    with pytest.raises(ServeError, match="more than 1000 bytes"):
        linked(server).download("/v1/files/a", io.BytesIO(), most=1000)


def test_an_answer_is_read_while_it_comes_and_breaks_off(server: Any) -> None:
    link, read = linked(server), bytearray()
    for cut in CUTS:
        answer = link.stream("GET", "/v1/files/a", b"")
        with pytest.raises(BrokenOff, match="broke off"):
            while answer.left:
                read += answer.read(min(1000, answer.left))
        assert CONTENT.startswith(read) and len(read) <= cut
        read.clear()
    answer = link.stream("GET", "/v1/files/a", b"")
    assert answer.left == len(CONTENT)
    assert answer.read(10) + answer.read(answer.left) == CONTENT
    answer.close()
    kept = link._connection
    assert kept is not None and link.call("GET", "/v1/files/a") == CONTENT and link._connection is kept
    half = link.stream("GET", "/v1/files/a", b"")
    half.read(10)
    half.close()  # what is unread goes with its connection
    assert link.call("GET", "/v1/files/a") == CONTENT


def test_an_answer_beyond_what_was_agreed_is_not_read(server: Any) -> None:
    server.cuts.clear()
    with pytest.raises(ServeError, match="more than 1000 bytes"):
        linked(server).stream("GET", "/v1/files/a", b"", most=1000)


def test_a_full_disk_is_no_lost_connection(server: Any) -> None:
    class Full(io.BytesIO):
        def write(self, piece: Any) -> int:
            raise OSError(28, "No space left on device")

    server.cuts.clear()
    with pytest.raises(ServeError, match=r"No space left.*choose another --folder"):
        linked(server).download("/v1/files/a", Full())


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(server: Any, tmp_path: Path) -> None:
    server.cuts.clear()
    link, seal = linked(server), hashlib.sha256(CONTENT).hexdigest()
    fetch(link, tmp_path, "a", seal)
    server.cuts.append(0)
    fetch(link, tmp_path, "a", seal)
    assert server.cuts == [0]
    (tmp_path / "a").write_bytes(b"damaged")
    fetch(link, tmp_path, "a", seal)
    assert (tmp_path / "a").read_bytes() == CONTENT and not server.cuts
