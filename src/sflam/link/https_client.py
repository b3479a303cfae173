"""A device's side of the connection: one kept-alive HTTPS connection of the standard library, patient with losses."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sflam.codec.bodies import Body
from sflam.errors import BrokenOff, Refused, ServeError
from sflam.files import from_json, writing
from sflam.link.address import is_loopback, server_address
from sflam.link.bad_answers import one_line, plain_http, reason, too_small
from sflam.link.own_token import HEADER, OwnToken
from sflam.link.token_bucket import TokenBucket
from sflam.link.trust import distrust, tls_context

LARGEST = 1 << 34
REQUEST = "Sflam-Request"
"""The header of an answer with the number of its request in the server's log."""
CHUNK = 1 << 16
DISK = "choose another --folder"
SHORT = 1 << 20
"""Bytes of JSON there may be in an answer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
AWAY = (0, 408, 429, 502, 503, 504)
"""No answer, and what a server answers that is busy or stops, or a proxy before it while it is away."""


class Link:
    """Requests to one server.

    Args:
        address: as :func:`server_address` takes it; ``http://`` on this machine alone.
        token: the device's token.
        ca: PEM file of the authority that signed the server's certificate; None takes the system's.
        certificate: PEM file of the device's own certificate, where the server asks for one.
        key: PEM file of its key.
        pinned: the one certificate that is trusted, PEM; "" trusts as ``ca`` says.
        insecure: allow ``http://`` beyond this machine.
        own: the token in its file, which is renewed where the server finds that due; None leaves it as it is.
        patience: seconds without any answer after which a request is given up.
        notify: shows a line to the user of the device.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        address: str,
        token: str,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        pinned: str = "",
        insecure: bool = False,
        own: OwnToken | None = None,
        patience: float = 600.0,
        timeout: float = 60.0,
        notify: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        scheme, self.host, self.port, self.prefix = server_address(address)
        if scheme == "http" and not (insecure or is_loopback(self.host)):
            raise ServeError(f"{address} would send the token in the clear; use https://, or give --insecure")
        self.token, self.own, self.insecure = token, own, insecure
        self.ca, self.certificate, self.key = ca, certificate, key
        self.patience, self.timeout, self.notify, self.sleep = patience, timeout, notify, sleep
        self.context: ssl.SSLContext | None = None
        if scheme == "https":
            self.context = tls_context(ca, certificate, key, pinned)
        self._connection: http.client.HTTPConnection | None = None
        self.most = LARGEST
        """Bytes of an answer that are read, of the request under way."""
        self._into: BinaryIO | None = None
        """The file that the answer of the request under way goes to."""
        self._streams = False
        """Whether the answer of the request under way is left open."""
        self._number = ""
        """Of the last request, as the server names it in its log."""
        self._open: http.client.HTTPResponse | None = None
        self._bucket: TokenBucket | None = None
        self.asked_s = self.received_s = 0.0
        """Seconds spent on requests so far, and of those in which bodies of answers came."""

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON a request is answered with; raises as :meth:`call` does."""
        sent = None if body is None else json.dumps(body).encode()
        found = self.call(method, path, sent, most=SHORT)
        try:
            return from_json(found)
        except ValueError:
            raise ServeError(
                f"{self.host}:{self.port} answers {path} with no JSON; is it an sflam server?"
            ) from None

    def download(self, path: str, file: BinaryIO, *, most: int = LARGEST) -> str:
        """Write the body that a GET is answered with to an empty file, piece by piece; return its SHA-256.

        Args:
            path: of the request.
            file: holds the body alone afterwards, however often the connection was lost.
            most: bytes there may be.

        Raises:
            ServeError: as :meth:`call` does; or the disk refuses.
        """
        self._renew()
        self._into = file
        try:
            return self.call("GET", path, most=most).decode()
        finally:
            self._into = None

    def call(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        headers: dict[str, str] | None = None,
        *,
        most: int = LARGEST,
    ) -> bytes:
        """Return the body a request is answered with, sending it again after losses and while the server is away.

        A proxy that finds the body too large is asked again, too: its limit can be raised while devices wait.

        Args:
            method: GET, POST or PUT.
            path: of the request.
            body: of the request.
            headers: of the request, beside the token.
            most: bytes there may be in the answer.

        Raises:
            Refused: the server refuses it for good.
            ServeError: no answer for ``patience`` seconds, a certificate that does not fit, or a server of plain HTTP.
        """
        self._renew()
        asked = time.monotonic()
        try:
            return self._answered(method, path, body, headers, most)
        finally:
            self.asked_s += time.monotonic() - asked

    def _answered(
        self, method: str, path: str, body: Body | None, headers: dict[str, str] | None, most: int
    ) -> bytes:
        """Return the body of the answer; see :meth:`call`."""
        began, pause, reported, small = time.monotonic(), FIRST_PAUSE, False, ""
        first: Refused | None = None
        self.most = most
        while True:
            try:
                status, retry, found = self._once(method, path, body, headers or {})
                if len(found) > most:
                    raise ServeError(self._too_much(path))
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise ServeError(f"the certificate of {self.host}:{self.port} {distrust(error)}") from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
                    raise ServeError(plain_http(self.host, self.port, self.prefix)) from error
                status, retry, found = 0, None, str(error).encode() or type(error).__name__.encode()
            if first is not None and self.own is not None and status not in (401, 403, *AWAY):
                self.own.take()
            if 200 <= status < 300:
                return found
            own = reason(found) if status else None
            own = f"{own} (request {self._number})" if own and self._number else own
            if status == 413 and own is None:
                own = small = too_small(self.host, self.port, len(body or b""))
            elif status not in AWAY:
                refused = Refused(
                    status, own or f"{method} {path} is answered by status {status}, and not by sflam"
                )
                if status not in (401, 403):
                    raise refused
                first = first or refused
                if "Authorization" in (headers or {}) or not self._another_token():
                    raise first
                continue
            why = own or (f"status {status}" if status else one_line(found))
            if status:
                began = time.monotonic() if status == 503 and retry == 0 else began  # it is being computed
            if time.monotonic() - began > self.patience:
                raise ServeError(
                    small
                    or f"no answer from {self.host}:{self.port} for {self.patience:g} s ({why}); is the server up?"
                )
            if not reported and not (status == 503 and retry == 0):
                self.notify(f"no answer from {self.host}:{self.port} ({why}); trying again")
                reported = True
            self.sleep(pause * random.uniform(0.5, 1.0) if retry is None else retry)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _renew(self) -> None:
        """Exchange the token for the next one where that is due: by one request between two others."""
        if self.own is not None and self.own.due and not self._streams and self._into is None:
            self.most = SHORT
            self.own.renew(self._tried)
            self.token = self.own.token

    def _tried(
        self, method: str, path: str, body: Body, headers: dict[str, str]
    ) -> tuple[int, float | None, bytes]:
        """Send one request as :meth:`_once` does; raises OSError, and nothing else, where no answer comes."""
        try:
            return self._once(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OSError(str(error) or type(error).__name__) from error

    def _another_token(self) -> bool:
        """Go on with the next token, where one died before it was known whether the server has it."""
        if self.own is not None and self.token == self.own.token and (following := self.own.next()):
            self.token = following
            return True
        self.token = self.token if self.own is None else self.own.token
        return False

    def stream(
        self,
        method: str,
        path: str,
        body: Body,
        headers: dict[str, str] | None = None,
        *,
        most: int = LARGEST,
    ) -> Streamed:
        """Send a request as :meth:`call` does; return its answer to be read while it comes, before the next request."""
        self._renew()
        self._streams = True
        try:
            self.call(method, path, body, headers, most=most)
        finally:
            self._streams = False
        assert self._open is not None, "_once leaves it open"
        return Streamed(self, self._open)

    def _stored(self, response: http.client.HTTPResponse, file: BinaryIO) -> bytes:
        """Write an answer to a file, in place of what is there; return its SHA-256 in hexadecimal."""
        seal, size = hashlib.sha256(), 0
        with writing("a download", DISK, ServeError):
            file.seek(0)
            file.truncate()
        while piece := response.read(CHUNK):
            seal.update(piece)
            size += len(piece)
            if size > self.most:
                self.close()
                raise ServeError(self._too_much("a download"))
            with writing("a download", DISK, ServeError):
                file.write(piece)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return seal.hexdigest().encode()

    def close(self) -> None:
        """Close the connection."""
        self._open = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(
        self, method: str, path: str, body: Body | None, headers: dict[str, str]
    ) -> tuple[int, float | None, bytes]:
        """Send one request; return its status, Retry-After and body."""
        if self._connection is None:
            if self.context is None:
                self._connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
            else:
                self._connection = http.client.HTTPSConnection(
                    self.host, self.port, timeout=self.timeout, context=self.context
                )
        connection, path = self._connection, self.prefix + path
        own = {} if self.own is None else self.own.headers()
        sent = {"Authorization": f"Bearer {self.token}"} | own | headers
        if body is None or (len(body) <= CHUNK and self._bucket is None):
            connection.request(method, path, body, sent)
            response = connection.getresponse()
        else:
            # Piece by piece: the timeout is then for every piece, and a slow uplink may take as long as it needs.
            view = memoryview(body)
            pieces = self._pieces(view)
            try:
                connection.request(method, path, pieces, sent | {"Content-Length": str(len(body))})
            except (BrokenPipeError, ConnectionResetError) as broken:
                response = _before_the_end(connection, broken)
            else:
                response = connection.getresponse()
        self._number = "".join(c for c in response.headers.get(REQUEST, "")[:32] if c in "0123456789abcdef")
        if self.own is not None:
            self.own.heard(response.headers.get(HEADER))
        retry = response.headers.get("Retry-After", "")
        try:
            seconds = min(LONGEST_PAUSE, max(0.0, float(retry)))
        except ValueError:
            seconds = None
        if self._streams and 200 <= response.status < 300:
            if (response.length or 0) > self.most:
                self.close()
                raise ServeError(self._too_much(path))
            self._open = response
            return response.status, seconds, b""
        began = time.monotonic()
        with response:
            if self._into is not None and 200 <= response.status < 300:
                found = self._stored(response, self._into)
            else:
                try:
                    found = response.read(self.most + 1)
                    if len(found) <= self.most and response.length:
                        raise http.client.IncompleteRead(found, response.length)
                except (OSError, http.client.HTTPException):
                    if 200 <= response.status < 300:
                        raise
                    self.close()  # one who refuses a body may go before its reasons have come
                    found = b""
            if response.will_close:
                self.close()
        self.received_s += time.monotonic() - began
        return response.status, seconds, found

    def pace(self, rate: float | None) -> None:
        """Send bodies at ``rate`` bit/s at most from now on; None sends them as the network takes them."""
        self._bucket = None if rate is None else TokenBucket(rate, sleep=self.sleep)

    def _pieces(self, view: memoryview) -> Iterator[memoryview]:
        """Yield a body piece by piece, each when it may go."""
        size = CHUNK if self._bucket is None else self._bucket.piece
        for at in range(0, len(view), size):
            piece = view[at : at + size]
            if self._bucket is not None:
                self._bucket.take(len(piece))
            yield piece

    def _too_much(self, path: str) -> str:
        return (
            f"{self.host}:{self.port} answers {path} with more than {self.most} bytes; is it an sflam server?"
        )


class Streamed:
    """An answer that is read while it comes; see :meth:`Link.stream`."""

    def __init__(self, link: Link, response: http.client.HTTPResponse) -> None:
        self._link, self._response = link, response
        self.left = response.length or 0
        """Bytes that are still to be read."""

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes.

        Raises:
            BrokenOff: they do not come.
        """
        began = time.monotonic()
        try:
            found = self._response.read(count) if count else b""
        except (OSError, http.client.HTTPException) as error:
            self._link.close()
            raise BrokenOff(f"an answer broke off ({error})") from error
        finally:
            took = time.monotonic() - began
            self._link.asked_s += took
            self._link.received_s += took
        if len(found) < count:
            self._link.close()
            raise BrokenOff(f"an answer broke off {self.left - len(found)} bytes before its end")
        self.left -= count
        return found

    def close(self) -> None:
        """End it: the connection stays where all was read."""
        if self.left or self._response.will_close:
            self._link.close()
        self._response.close()


def _before_the_end(connection: http.client.HTTPConnection, broken: OSError) -> http.client.HTTPResponse:
    """Return the answer of a side that refuses a body without reading it; raises ``broken`` where there is none."""
    try:
        return connection.getresponse()
    except (OSError, http.client.HTTPException):
        raise broken from None
