"""What a release's device and server said to each other, kept as test data for every later release.

``recorded/VERSION.json`` has two conversations: of a device with a server in memory, and of requests with the web
application. ``python -m tests.serve.recorded_protocol`` writes those of the installed version, once, for its release.
"""

from __future__ import annotations

import http.client
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sflam.codec.bodies import encode
from sflam.codec.messages import AdapterFrame
from tests.link.test_loop import Memory, client
from tests.serve.test_hostile import Site, step_body

FOLDER = Path(__file__).with_name("recorded")
AT = "/v1/rounds/0/1"
REQUESTS = [
    ("POST", "/v1/session", json.dumps({"samples": 4}).encode()),
    ("GET", "/v1/round", b""),
    ("GET", f"{AT}/adapters", b""),
    *(("POST", f"{AT}/steps/{step}", step_body(step=step)) for step in range(3)),
    ("POST", f"{AT}/steps/2", step_body(step=2)),
    ("POST", f"{AT}/steps/0", step_body(step=0)),
    ("PUT", f"{AT}/adapters", encode(AdapterFrame(0, 0, 8, np.arange(6, dtype=np.float32)))),
    ("GET", "/v1/round", b""),
]


class Recording(Memory):
    """A server in memory that writes the conversation down."""

    def __init__(self):
        super().__init__()
        self.lines, self.inside = [], False

    def json(self, method, path, body=None):
        if self.inside:
            return super().json(method, path, body)
        self.inside = True
        found = super().json(method, path, body)
        self.inside = False
        self.lines.append([method, path, body, found])
        return found

    def call(self, method, path, body=None, headers=None, *, most=0):
        found = super().call(method, path, body, headers, most=most)
        self.lines.append([method, path, bytes(body or b"").hex(), found.hex()])
        return found


def asked(site, method, path, body):
    """Return status and answer of a request of device 0, as an older device sends it."""
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=30)
    headers = {"Authorization": f"Bearer {site.token}"} | ({"Sflam-Tokens": "7"} if "/steps/" in path else {})
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def main():
    """Write the conversations of the installed version."""
    with tempfile.TemporaryDirectory() as folder:
        server = Recording()
        client(server, Path(folder)).run()
        site = Site(Path(folder))
        answers = [
            [m, p, b.hex(), *(lambda s, a: (s, a.hex()))(*asked(site, m, p, b))] for m, p, b in REQUESTS
        ]
        site.dispatch.stop()
        site.server.stop()
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{version('sflam')}.json"
    file.write_text(json.dumps({"device": server.lines, "server": answers}, indent=0) + "\n")
    print(f"wrote {file}, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
