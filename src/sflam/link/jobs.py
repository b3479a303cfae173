"""A device's jobs, one after another: when the server has another one, it is taken up."""

from __future__ import annotations

import gc
from collections.abc import Callable

from sflam.errors import OtherJob
from sflam.link.half import X
from sflam.link.loop import Client


def until_it_ends(taken_up: Callable[[], Client[X]], notify: Callable[[str], None]) -> int:
    """Take part in a job, and in the one that takes its place, until it ends; return the rounds trained in all.

    Args:
        taken_up: returns the device, ready to take part in the job that the server has now.
        notify: shows a line to the user of the device.

    Raises:
        SflamError: whatever keeps it from taking part.
    """
    rounds = 0
    while True:
        client = taken_up()
        try:
            return rounds + client.run()
        except OtherJob as other:
            notify(f"{other}; taking it up")
            rounds += client.rounds
        finally:
            client.release()
        # Before the next one comes: a device that takes up less may be short of memory, and halves refer to themselves.
        del client
        gc.collect()
