"""A device's token is of use with one certificate alone: that of its enrolment, or the first it was used with."""

from __future__ import annotations

from starlette.requests import Request

from sflam.errors import Refused
from sflam.serve.event_log import EventLog
from sflam.serve.ingress import Ingress
from sflam.serve.peer_certificate import shown_by
from sflam.serve.roster_entry import Entry

SHOWN = 16
"""Digits of a key's hash in a message."""


class CertificateBinding:
    """Compares the certificate of each request with that of its token; from then on the ingress has it done.

    Args:
        ingress: what routes need; tokens are bound before anything else is done with them.
        event_log: a line for each token that is bound.
    """

    def __init__(self, ingress: Ingress, event_log: EventLog) -> None:
        self.ingress, self.event_log = ingress, event_log
        ingress.shown.insert(0, self.shown)

    def shown(self, request: Request, entry: Entry, token: str) -> None:
        """A device has shown a token that is good.

        Raises:
            Refused: 403, another certificate than the token's, or none.
            ServeError: the token is bound now, and the roster cannot be written.
        """
        found = shown_by(request)
        if found is None:
            if entry.certificate:
                raise Refused(
                    403,
                    f"the token of {entry.name} is bound to a device certificate, and this connection shows none; "
                    f"start the server with --client-ca, or free the token: sflam admin SERVER unbind {entry.name}",
                )
            return
        if not entry.certificate:
            entry = self.ingress.roster.bind(entry.name, found.key)
            self.event_log("token_bound", name=entry.name, device=entry.device, key=entry.certificate)
        if entry.certificate != found.key:
            raise Refused(
                403,
                f"the token of {entry.name} is bound to the certificate with key {entry.certificate[:SHOWN]}, and this "
                f"device shows one with key {found.key[:SHOWN]}; use the token where it belongs, or free it: sflam "
                f"admin SERVER unbind {entry.name}",
            )
