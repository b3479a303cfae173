"""What a sum of adapters under masks (``privacy.secure_aggregation``) costs a device and the server.

    python benchmarks/secure.py [--devices N ...] [--numbers N ...] [--lost SHARE ...]

Devices and server are in one process; every message goes through its body. Processor seconds of one sum: of a device,
the mean; of the server, with the masks of devices that are lost after they shared their secrets. Bytes are of a device.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from common import introduce, machine, show

from sflam.secure.bodies import Message, decode_message, encode_message
from sflam.secure.device_side import MaskingDevice
from sflam.secure.graph import degree
from sflam.secure.server_side import SummingServer
from sflam.units import human_bytes

SHARE = 0.66
WIDTH = 4


def one_sum(devices: int, numbers: int, lost: float) -> dict[str, Any]:
    """Return what one sum took; raises AssertionError where it is not the plain one."""
    draw = np.random.default_rng(0)
    vectors = {d: draw.integers(0, 2**20, numbers).astype(np.uint64) for d in range(devices)}
    gone = set(draw.choice(devices, round(lost * devices), replace=False).tolist())
    seconds, sent, received = {"device": 0.0, "server": 0.0}, 0, 0

    def timed(who: str, began: float) -> None:
        seconds[who] += time.process_time() - began

    def up(answers: Mapping[int, Message]) -> dict[int, Message]:
        nonlocal sent
        bodies = {device: encode_message(message) for device, message in answers.items()}
        sent += sum(map(len, bodies.values()))
        return {d: decode_message(body, type(answers[d]), numbers + devices) for d, body in bodies.items()}

    began = time.process_time()
    own = {device: MaskingDevice(device, b"benchmark", SHARE) for device in range(devices)}
    adverts = up({device: each.advertise() for device, each in own.items()})
    timed("device", began)
    began = time.process_time()
    server = SummingServer(b"benchmark", SHARE, numbers, WIDTH)
    known = server.introduce(adverts)
    timed("server", began)
    began = time.process_time()
    shared = up({device: own[device].share(found) for device, found in known.items()})
    timed("device", began)
    began = time.process_time()
    handed = server.hand_on(shared)
    timed("server", began)
    began = time.process_time()
    masked = up({d: own[d].mask(found, vectors[d], WIDTH) for d, found in handed.items() if d not in gone})
    timed("device", began)
    began = time.process_time()
    rolls = server.call_roll(masked)
    timed("server", began)
    began = time.process_time()
    revealed = up({device: own[device].reveal(roll) for device, roll in rolls.items()})
    timed("device", began)
    began = time.process_time()
    total = server.total(revealed)
    timed("server", began)
    for answers in (known, handed, rolls):
        received += sum(len(encode_message(message)) for message in answers.values())
    wanted = sum(vector for device, vector in vectors.items() if device not in gone) % 2 ** (8 * WIDTH)
    assert (total == wanted).all()
    return {
        "devices": devices,
        "neighbours": degree(devices, SHARE),
        "lost": len(gone),
        "numbers": numbers,
        "device, s": f"{seconds['device'] / devices:.3g}",
        "server, s": f"{seconds['server']:.3g}",
        "up": human_bytes(sent / devices),
        "of it keys, shares": human_bytes(sent / devices - WIDTH * numbers * len(masked) / devices),
        "down": human_bytes(received / devices),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--devices", nargs="+", type=int, default=[10, 100, 500])
    options.add_argument("--numbers", nargs="+", type=int, default=[11_425])
    options.add_argument("--lost", nargs="+", type=float, default=[0.0, 0.05])
    options.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = options.parse_args()
    introduce(machine(), as_json=args.json)
    rows = [
        one_sum(devices, numbers, lost)
        for numbers in args.numbers
        for devices in args.devices
        for lost in args.lost
    ]
    show(rows, as_json=args.json, title="one sum")


if __name__ == "__main__":
    main()
