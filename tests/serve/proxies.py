"""Reverse proxies on this machine, at /sflam: one of our own and nginx, with at most 1 MB a body, and Caddy."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import threading
import time
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST = 1 << 20
"""Bytes of a body, as nginx has it when nothing is configured."""


def free_port():
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Forwarding(BaseHTTPRequestHandler):
    """Passes requests on, and answers 502 while there is no upstream, 413 to large bodies without reading them."""

    protocol_version = "HTTP/1.1"

    def forward(self):
        size = int(self.headers.get("Content-Length", 0))
        if size > MOST:
            self.close_connection = True
            self.reply(413, b"<html>413 Request Entity Too Large</html>", {})
            with suppress(OSError):  # one that closes at once may take its answer with it
                self.rfile.read(size)
            return None
        body = self.rfile.read(size)
        if not self.path.startswith("/sflam/"):
            return self.reply(404, b"<html>not here</html>", {})
        try:
            with closing(
                http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
            ) as upstream:
                upstream.request(self.command, self.path.removeprefix("/sflam"), body, dict(self.headers))
                found = upstream.getresponse()
                return self.reply(found.status, found.read(), dict(found.getheaders()))
        except (OSError, http.client.HTTPException):
            return self.reply(502, b"<html>502 Bad Gateway</html>", {})

    do_GET = do_POST = do_PUT = forward

    def reply(self, status, body, headers):
        self.send_response(status)
        for name in ("Retry-After", "Content-Type"):
            if value := headers.get(name.lower()):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_):
        """Write no log."""


@contextmanager
def forwarding(folder, upstream):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forwarding)
    server.daemon_threads, server.upstream = True, upstream
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    client_body_buffer_size 1m;
    location /sflam/ {{ proxy_pass http://127.0.0.1:{upstream}/; }}
  }}
}}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  handle_path /sflam/* {{
    reverse_proxy 127.0.0.1:{upstream}
  }}
}}
"""


@contextmanager
def nginx(folder, upstream):
    with started(folder, upstream, NGINX, "nginx", "-p", str(folder), "-c") as port:
        yield port


@contextmanager
def caddy(folder, upstream):
    with started(folder, upstream, CADDY, "caddy", "run", "--adapter", "caddyfile", "--config") as port:
        yield port


@contextmanager
def started(folder, upstream, text, name, *arguments):
    """Start a proxy as a process of its own and wait until it listens."""
    folder.mkdir()
    port, settings = free_port(), folder / "settings"
    settings.write_text(text.format(folder=folder, port=port, upstream=upstream))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([shutil.which(name), *arguments, str(settings)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(30)


PROXIES = {"own": forwarding, "nginx": nginx, "caddy": caddy}
