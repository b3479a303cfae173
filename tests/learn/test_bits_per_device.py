"""Every device sends and receives with its own bits, which may change from round to round."""

from __future__ import annotations

import pytest

from sflam import sizes
from sflam.codec.settings import QuantSettings
from sflam.model.adapters import state_of
from tests.learn.builders import adapted, assert_equal_states, local_fleet, parts_of, run, with_bits
from tests.tiny import WIDTH

PATCHES = 17
SIZES = [4, 3, 2]


def bytes_of(bits):
    """Return the bytes of one step of every device, by formula, at each device's (up, down)."""
    pairs = list(zip(SIZES, bits, strict=True))
    up = [sizes.step_body_bytes(n * PATCHES, WIDTH, b, rows=n, labels=n) for n, (b, _) in pairs]
    return sum(up), sum(sizes.token_body_bytes(n * PATCHES, WIDTH, b) for n, (_, b) in pairs)


def made(quant):
    backbone, model, examples = adapted("vit")
    return local_fleet(backbone, model, examples, parts_of(SIZES), quant=quant), state_of(model)


def test_bytes_on_the_wire_follow_each_devices_bits_round_by_round():
    fleet, state = made(QuantSettings(bits_up=8, bits_down=8))
    expected = [(8, 8)] * 3
    for bits in [{0: (3, 5), 1: (16, 1), 2: (7, 11)}, {0: (4, 4)}, {}]:
        fleet.place(with_bits(fleet, bits))
        (record,), _ = run(fleet, state, 1)
        expected = [bits.get(device, expected[device]) for device in range(3)]
        assert (record.bytes_up, record.bytes_down) == bytes_of(expected)
        codes = [
            sizes.codes_bytes(n * PATCHES, WIDTH, b) for n, e in zip(SIZES, expected, strict=True) for b in e
        ]
        assert record.code_bytes == sum(codes)


def test_the_payload_of_each_device_is_codes_and_side_bits_without_headers():
    fleet, state = made(QuantSettings(bits_up=8, bits_down=8))
    fleet.place(with_bits(fleet, {0: (3, 5), 1: (16, 1)}))
    fleet.download(0, (0, 1, 2), state)
    steps = fleet.local_steps(0, (0, 1, 2))
    for device, (rows, up, down) in enumerate([(4, 3, 5), (3, 16, 1), (2, 8, 8)]):
        assert steps.payload_up[device] == sizes.payload_bits(rows * PATCHES, WIDTH, up)
        assert steps.payload_down[device] == sizes.payload_bits(rows * PATCHES, WIDTH, down)
    headers = 3 * sizes.HEADER_BYTES
    assert 8 * (steps.bytes_down - headers) == sum(steps.payload_down.values())


def test_one_width_for_all_devices_is_the_common_width():
    common, state = made(QuantSettings(bits_up=5, bits_down=6))
    planned, _ = made(QuantSettings(bits_up=8, bits_down=8))
    planned.place(with_bits(planned, dict.fromkeys(range(3), (5, 6))))
    assert_equal_states(run(planned, state, 2)[1], run(common, state, 2)[1], tolerance=0 + 1e-300)


def test_floats_have_no_bits_to_assign():
    fleet, state = made(QuantSettings(scheme="identity"))
    before = run(fleet, state, 1)[0][0].bytes_up
    fleet.place(with_bits(fleet, {0: (2, 2)}))
    assert run(fleet, state, 1)[0][0].bytes_up == before


@pytest.mark.parametrize("labels", ["server", "device"])
def test_labels_at_home_use_the_same_bits_on_every_leg(labels):
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of(SIZES), quant=QuantSettings(), labels=labels)
    fleet.download(0, (0, 1, 2), state_of(model))
    fleet.place(with_bits(fleet, {0: (2, 3)}))
    steps = fleet.local_steps(0, (0, 1, 2))
    legs = 2 if labels == "device" else 1
    assert steps.payload_up[0] == legs * sizes.payload_bits(4 * PATCHES, WIDTH, 2)
    assert steps.payload_down[0] == legs * sizes.payload_bits(4 * PATCHES, WIDTH, 3)
