"""What a device trained, handed to the open round: checked against what was agreed, taken once, and written down."""

from __future__ import annotations

from collections.abc import Mapping

from sflam.codec.bodies import Body, decode
from sflam.codec.messages import ChangeFrame
from sflam.errors import Refused
from sflam.link.contract import Contract, expect_same_grid
from sflam.link.device_report import HEADER, report_from
from sflam.serve.deliveries import Result
from sflam.serve.dispatch import sealed
from sflam.serve.ingress import Ingress

LOSS = "sflam-loss"


def reported_loss(headers: Mapping[str, str], contract: Contract) -> float:
    """Return the round's mean loss as reported by a device with labels at home; raises Refused, 422."""
    if contract.labels_up:
        return 0.0
    least, most = contract.losses
    try:
        value = float(headers.get(LOSS, ""))
        if not least <= value <= most:
            raise ValueError
        return value
    except ValueError:
        what = f"a number from {least:g} to {most:g}"
        raise Refused(422, f"Sflam-Loss must be the mean loss of the round, {what}") from None


def delivered_size(contract: Contract) -> int:
    """Return the bytes of the body in which a device delivers."""
    return contract.delivered_bytes() if contract.adapters else 0


def hand_over(
    ingress: Ingress, device: int, round: int, attempt: int, body: Body, loss: float, sent: bytes
) -> None:
    """Give the session a body of what a device trained; one that came before changes nothing.

    Args:
        ingress: what requests need.
        device: whose it is.
        round: its number.
        attempt: of the opening.
        body: of the agreed size.
        loss: its mean loss, where only the device knows it.
        sent: what the device began the round with.

    Raises:
        WireError: it holds something else than was agreed.
        Refused: the round does not take it.
    """
    contract = ingress.contracts[device]
    message = contract.check_adapters(decode(body), round) if contract.adapters else None
    if isinstance(message, ChangeFrame) and len(sent) > contract.adapter_bytes():  # grids came with it
        expect_same_grid(message, sent)
    hand_in(ingress, device, round, attempt, (message, loss, len(body)), sealed(body))


def hand_in(ingress: Ingress, device: int, round: int, attempt: int, result: Result, seal: bytes) -> None:
    """Give the session what a device delivers, and write it down; one that came before changes nothing.

    Args:
        ingress: what requests need.
        device: whose it is.
        round: its number.
        attempt: of the opening.
        result: what was checked.
        seal: digest of its body.

    Raises:
        Refused: the round does not take it.
    """
    dispatch = ingress.dispatch
    now = dispatch.clock()
    with dispatch.locked() as session:
        met = session.met
        first = session.deliver(device, round, attempt, result, now, seal)
        left = session.waited_for(now) if session.met and not met else None
    if first:
        ingress.stats.finished(device)
        ingress.event_log("delivered", device=device, round=round, attempt=attempt)
    if left and left.devices:
        ingress.event_log(
            "quorum", round=round, attempt=attempt, waiting=list(left.devices), seconds=left.seconds
        )


def hand_over_message(
    ingress: Ingress, device: int, round: int, attempt: int, body: bytes, headers: Mapping[str, str]
) -> None:
    """Give the session what a device trained and sent by another carrier, as the route of its adapters does.

    Args:
        ingress: what requests need.
        device: whose it is, as the carrier vouches for.
        round: the number it names.
        attempt: the opening it names.
        body: as it came, of any size.
        headers: what came beside it, by lower-case names.

    Raises:
        WireError: it holds something else than was agreed.
        Refused: the round does not take it.
    """
    contract = ingress.contracts[device]
    with ingress.dispatch.looked() as session:
        session.check_done(device, round, attempt)
        sent = ingress.dispatch.downloads[device]
    loss, report = reported_loss(headers, contract), report_from(headers.get(HEADER.lower()))
    if len(body) != (agreed := delivered_size(contract)):
        raise Refused(422, f"a body of {len(body)} bytes; {agreed} were agreed")
    with ingress.stats.arriving(device) as arrival:
        ingress.stats.received(arrival, len(body), trained=True, report=report)
    hand_over(ingress, device, round, attempt, body, loss, sent)
