"""Tabs of one real browser that are devices of a served job, over TLS by a private authority."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sflam.web.pages import join_link
from tests.report.browser import Browser, found

needs_browser = pytest.mark.skipif(found() is None, reason="Chromium is not installed")


def trusting(certificate: Path) -> str:
    """Return the option by which Chromium trusts one server's key, and no other, as if its authority were installed."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(spki).digest()).decode()}"


class Tab:
    """One page of the browser as a device.

    Args:
        browser: that it is of.
        link: what its user opened.
    """

    def __init__(self, browser: Browser, link: str) -> None:
        self.browser, self.link = browser, link
        self.session = browser.attach()
        self.open()

    def open(self) -> None:
        """Open the link."""
        self.browser.turn_to(self.session)
        self.browser.open(self.link)

    def reload(self) -> None:
        """Load the page again, as its user would."""
        self.browser.turn_to(self.session)
        self.browser.send("Page.reload")

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        self.browser.turn_to(self.session)
        return self.browser.value(expression)

    def text(self, name: str) -> str:
        """Return what an element shows; nothing where it is hidden."""
        place = f"document.getElementById({json.dumps(name)})"
        return str(self.value(f"{place} && !{place}.hidden ? {place}.innerText : ''") or "")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of an expression once it is true; fail with what the page shows otherwise."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := self.value(expression):
                return value
            time.sleep(0.05)
        shown = self.value("document.body.innerText")
        raise AssertionError(
            f"{expression} did not come; {self.browser.complaints}; the page shows:\n{shown}"
        )

    def click(self, name: str, seconds: float = 60) -> None:
        """Click on a button once it can be clicked on."""
        place = f"document.getElementById({json.dumps(name)})"
        self.wait_for(f"{place} && {place}.offsetParent && !{place}.disabled", seconds)
        self.value(f"{place}.click()")

    def train(self) -> Self:
        """Take this device's share of the digits and start."""
        self.click("share")
        self.click("start")
        return self

    def wait_ended(self, seconds: float = 120) -> str:
        """Return the page's last line once the job has ended."""
        self.wait_for("document.getElementById('status').innerText === 'ended'", seconds)
        return str(self.value("document.querySelector('#log li').innerText"))


def browser_of(folder: Path, **look: Any) -> Browser:
    """Return a browser that trusts the network in a folder."""
    return Browser(options=(trusting(folder / "certs" / "server.pem"),), **look)


def link_of(net: Any, device: int) -> str:
    """Return the link of a device, as ``sflam enrol --link`` prints it."""
    token = (net.folder / f"token-{device}").read_text()
    return join_link(f"https://localhost:{net.port}", token)
