"""Whether a device's job sums adapters under masks, and then what the device needs for it: checked before it joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sflam.config import Job
from sflam.link.https_client import Link
from sflam.link.place import Place
from sflam.secure.installed import expect_installed

if TYPE_CHECKING:  # it needs the cryptography library
    from sflam.link.masked_way import MaskedWay

    Masks = Callable[[Link, Place, int], MaskedWay | None]


def masks_of(job: Job, notify: Callable[[str], None]) -> Masks:
    """Return what makes a device's masks of its link, its place and the bits of an adapter value; None for no masks.

    Raises:
        SecureSumError: the job has secure sums, and the library that they need is missing.
    """
    if not job.privacy.secure_aggregation:
        return lambda link, place, bits: None
    expect_installed()
    from sflam.link.masked_way import MaskedWay

    notify("what this device trains goes up under masks: the server is to learn sums of devices alone")
    learn, devices, share = job.learn, job.fleet.devices, job.privacy.secure_threshold
    return lambda link, place, bits: MaskedWay(link, place, learn, bits, devices, share)
