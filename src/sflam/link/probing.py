"""A device's answer where a server asks for a probe of the ways between them."""

from __future__ import annotations

import time

from sflam.errors import Refused
from sflam.link.device_report import HEADER, DeviceReport
from sflam.link.https_client import Link

SELDOM = 1.0
"""Seconds between two probes at least, whatever a server asks for."""


class Probing:
    """The probes of a device.

    Args:
        link: the way to the server.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._again = link, 0.0

    def answer(self, size: int) -> None:
        """Let the server measure the ways: a body down, one up with how long that took; seldom."""
        if time.monotonic() < self._again:
            return
        self._again = time.monotonic() + SELDOM
        try:
            received = self._link.received_s
            body = self._link.call("GET", "/v1/probe", most=size)
            report = DeviceReport(receive_s=self._link.received_s - received)
            self._link.call("POST", "/v1/probe", body, {HEADER: report.to_header()})
        except Refused as refused:
            if refused.status != 409:
                raise
