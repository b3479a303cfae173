"""Connections that do nothing, held by a process of its own: their files are not those of the tests."""

from __future__ import annotations

import resource
import select
import socket
import subprocess
import sys
from contextlib import contextmanager


def hold(port: int, count: int) -> None:
    """Open so many connections to a port of this machine, say so, and hold them until stdin ends."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for number in range(count):
        # More than one address of this machine: a port is not taken twice from one.
        held.append(
            socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{2 + number % 4}", 0))
        )
    print("held", flush=True)
    select.select([sys.stdin], [], [])


@contextmanager
def strangers(port, count):
    """Hold idle connections meanwhile."""
    holder = subprocess.Popen(
        [sys.executable, __file__, str(port), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(30)


if __name__ == "__main__":
    hold(int(sys.argv[1]), int(sys.argv[2]))
