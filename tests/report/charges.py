"""A charge for tests of reports: two seconds and 0.8 J a round."""

from __future__ import annotations

from sflam.records.charge import Charge


def charge(number: int) -> Charge:
    return Charge(
        seconds=2.0,
        clock=2.0 * (number + 1),
        finish=(1.5, 1.9),
        compute_j=0.4,
        transmit_j=0.2,
        adapter_j=0.1,
        server_j=0.1,
        device_j=(0.3, 0.4),
        battery_j=(),
        cuts=(1, 1),
        bits_up=(8, 4),
        bits_down=(8, 8),
        payload_up=(800, 400),
        payload_down=(800, 800),
        dropped=(),
        planned=number,
        method="optimal",
        predicted_s=1.9,
        charged_s=1.9,
        predicted_j=0.6,
        charged_j=0.6,
        objective=1.25,
        gap=1e-9,
    )
