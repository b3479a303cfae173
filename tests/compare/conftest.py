"""Processes of a comparison start from one that has everything imported, which is most of a tiny run's time.

That they start as ``python -m sflam.compare.worker`` is seen by the tests of plug-ins and by the slow ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import IO

import pytest

from sflam.compare import running
from tests.serve.network import FORKED


def work(files: Sequence[Connection], environment: Mapping[str, str]) -> None:
    """Be the worker, with these as its standard files; the others stay open, as inherited ones do."""
    from sflam.compare.worker import main

    for target, file in enumerate(files[:3]):
        os.dup2(file.fileno(), target)
    os.environ.update(environment)
    sys.exit(main())


class Worker:
    """What a comparison needs of ``subprocess.Popen``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stderr: IO[str],
        env: Mapping[str, str],
        pass_fds: Sequence[int],
        **_: object,
    ) -> None:
        assert list(command) == [sys.executable, "-m", "sflam.compare.worker"]
        (taken, given), (read, written) = os.pipe(), os.pipe()
        files = [Connection(taken), Connection(written, readable=False)]
        files += [Connection(os.dup(number)) for number in (stderr.fileno(), *pass_fds)]
        self.process = FORKED.Process(target=work, args=(files, dict(env)))
        self.process.start()
        for file in files:
            file.close()
        self.stdin, self.stdout = os.fdopen(given, "w"), os.fdopen(read)
        self.returncode: int | None = None

    def wait(self) -> int:
        """Return the exit code; below 0 the signal that ended it."""
        self.process.join()
        self.returncode = self.process.exitcode
        assert self.returncode is not None
        return self.returncode


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the processes of comparisons so."""
    monkeypatch.setattr(running, "subprocess", SimpleNamespace(Popen=Worker, PIPE=subprocess.PIPE))
