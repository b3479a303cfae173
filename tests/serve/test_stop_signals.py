"""SIGTERM as an interrupt: in the main thread, where signals arrive, and nowhere else."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sflam.serve.stop_signals import interrupted_by_sigterm


def test_sigterm_interrupts_and_the_handler_of_before_is_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) != before  # else the next line ends pytest
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_takes_no_signals_and_needs_none():
    before = signal.getsignal(signal.SIGTERM)

    def run():
        with interrupted_by_sigterm():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == before
