"""The parts of a secure sum: secrets shared out, the modulus, what a device refuses, and bodies that are damaged."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import SecureSumError, SflamError, WireError
from sflam.secure import installed
from sflam.secure.bodies import KINDS, body_bytes, decode_message, encode_message
from sflam.secure.device_side import MaskingDevice
from sflam.secure.keys import KeyPair, opened, seal
from sflam.secure.messages import (
    Advert,
    MaskedVector,
    Neighbours,
    RevealedShares,
    Roll,
    SealedShares,
)
from sflam.secure.ring import from_bytes, to_bytes, weighted, width_of
from sflam.secure.server_side import SummingServer
from sflam.secure.shamir import PRIME, join, split

CONTEXT = b"a sum"
ZEROS = np.zeros(4, np.uint64)


@given(st.binary(min_size=32, max_size=32), st.integers(2, 6), st.integers(0, 3))
def test_any_threshold_of_shares_give_a_secret_back(secret, threshold, more):
    places = [3 * place + 1 for place in range(threshold + more)]
    shares = split(secret, places, threshold)
    for some in itertools.islice(itertools.combinations(places, threshold), 10):
        assert join({place: shares[place] for place in some}, threshold) == secret
    with pytest.raises(
        SecureSumError, match=f"{threshold - 1} shares of a secret came, and it takes {threshold}"
    ):
        join({place: shares[place] for place in places[: threshold - 1]}, threshold)


def test_fewer_shares_fit_every_secret():
    """Two of three shares of degree two, and any secret: there is a third share that makes it so."""
    shares = split(bytes(32), [1, 2, 3], 3)
    for wanted in (0, 1, 2**255):
        # the value at 0 is 3 y_1 - 3 y_2 + y_3
        third = (wanted - 3 * shares[1] + 3 * shares[2]) % PRIME
        assert int.from_bytes(join({1: shares[1], 2: shares[2], 3: third}, 3), "big") == wanted


@given(st.integers(1, 16), st.integers(1, 2**40))
def test_the_modulus_holds_every_sum(bits, total):
    width = width_of((1 << bits) - 1, total)
    most = ((1 << bits) - 1) * total
    assert most < 1 << (8 * width) and (width == 1 or most >= 1 << (8 * (width - 1)))


def test_what_no_modulus_holds_is_refused_with_value_and_limit():
    with pytest.raises(
        SecureSumError, match=r"numbers up to 65535 .* 1000000000000000 have sums of 66 bits; at most 64"
    ):
        width_of(2**16 - 1, 10**15)
    with pytest.raises(SecureSumError, match=r"a weight of 300 on numbers up to 255 leaves 0..65535"):
        weighted(np.array([255, 3], np.uint64), 300, 2)
    with pytest.raises(SecureSumError, match="a weight of -1"):
        weighted(np.array([255, 3], np.uint64), -1, 2)


@given(st.integers(1, 8), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_numbers_to_bytes_and_back(width, numbers):
    vector = np.array([number % (1 << (8 * width)) for number in numbers], np.uint64)
    raw = to_bytes(vector, width)
    assert len(raw) == width * len(numbers) and from_bytes(raw, width).tolist() == vector.tolist()


def test_a_box_opens_for_the_two_who_agreed_on_its_key_alone():
    one, other, third = KeyPair(), KeyPair(), KeyPair()
    box = seal(one.agree(other.public, b"1 2"), b"text")
    assert opened(other.agree(one.public, b"1 2"), box) == b"text"
    for key in (other.agree(one.public, b"2 1"), third.agree(one.public, b"1 2")):
        with pytest.raises(WireError, match="does not open"):
            opened(key, box)
    with pytest.raises(WireError, match="no public key"):
        one.agree(bytes(32), b"")


def met(count=4, share=0.66):
    """Return devices and the server after the keys and the shares, and what each gets then."""
    devices = {d: MaskingDevice(d, CONTEXT, share) for d in range(count)}
    server = SummingServer(CONTEXT, share, 4, 2)
    known = server.introduce({d: own.advertise() for d, own in devices.items()})
    handed = server.hand_on({d: devices[d].share(found) for d, found in known.items()})
    return devices, server, known, handed


def roll_of(server, masked):
    """Add the numbers of devices; return the rolls."""
    for device, one in masked.items():
        server.add(device, one)
    return server.call_roll()


def test_a_device_never_reveals_both_secrets_of_another():
    """Not in one roll, and not in two."""
    devices, server, _, handed = met()
    roll_of(server, {d: devices[d].mask(found, ZEROS, 2) for d, found in handed.items()})
    with pytest.raises(
        SecureSumError, match=r"a roll names \[1, 1, 2, 3\]; it must have each of the neighbours"
    ):
        devices[0].reveal(Roll(present=(1, 2, 3), lost=(1,)))
    roll = Roll(present=(1, 2), lost=(3,))
    first = devices[0].reveal(roll)
    assert set(first.masks) == {0, 1, 2} and set(first.keys) == {3}
    assert devices[0].reveal(roll) == first  # the answer was lost on its way
    for other in (Roll(present=(1, 2, 3), lost=()), Roll(present=(1, 3), lost=(2,))):
        with pytest.raises(SecureSumError, match="another roll came"):
            devices[0].reveal(other)


def test_a_server_that_tells_devices_unlike_rolls_gets_no_device_bare():
    """One half of the devices hears that device 0 is lost, the other that it is there: neither secret has t shares."""
    devices, server, _, handed = met(6, 0.66)
    roll_of(server, {d: devices[d].mask(found, ZEROS, 2) for d, found in handed.items()})
    gone, there = [], []
    for device in range(1, 6):
        others = [other for other in range(1, 6) if other != device]
        if device < 3:
            gone.append(devices[device].reveal(Roll(present=tuple(others), lost=(0,))).keys[0])
        else:
            there.append(devices[device].reveal(Roll(present=(0, *others), lost=())).masks[0])
    for shares in (gone, there):
        with pytest.raises(SecureSumError, match="it takes 4"):
            join(dict(enumerate(shares, 1)), 4)


def test_a_device_answers_each_phase_once_and_in_order():
    devices, _, known, handed = met()
    with pytest.raises(SecureSumError, match="shared out once"):
        devices[0].share(known[0])
    fresh = MaskingDevice(9, CONTEXT, 0.66)
    with pytest.raises(SecureSumError, match="after secrets were shared out"):
        fresh.mask(handed[0], ZEROS, 2)
    with pytest.raises(SecureSumError, match="it must have each of the neighbours"):
        devices[0].reveal(Roll(present=(), lost=()))
    devices[0].mask(handed[0], ZEROS, 2)
    with pytest.raises(SecureSumError, match="masked once"):
        devices[0].mask(handed[0], ZEROS, 2)


def test_a_device_refuses_neighbours_that_cannot_be():
    device = MaskingDevice(0, CONTEXT, 0.66)
    one, other = (MaskingDevice(d, CONTEXT, 0.66).advertise() for d in (1, 2))
    with pytest.raises(SecureSumError, match="1 other devices came"):
        device.share(Neighbours(adverts={1: one}))
    with pytest.raises(WireError, match="one public key"):
        device.share(Neighbours(adverts={1: one, 2: one}))
    device.share(Neighbours(adverts={1: one, 2: other}))
    with pytest.raises(WireError, match="no neighbour"):
        device.mask(SealedShares(boxes={5: bytes(82)}), ZEROS, 2)
    with pytest.raises(SecureSumError, match="1 of 3 devices are left of a secure sum, and it takes 3"):
        device.mask(SealedShares(boxes={}), ZEROS, 2)
    with pytest.raises(WireError, match="does not open"):
        device.mask(SealedShares(boxes={1: bytes(82), 2: bytes(82)}), ZEROS, 2)


@pytest.mark.parametrize("kind", ["masks", "keys"])
def test_wrong_shares_are_noticed(kind):
    devices, server, _, handed = met()
    rolls = roll_of(server, {d: devices[d].mask(found, ZEROS, 2) for d, found in handed.items() if d != 3})
    revealed = {d: devices[d].reveal(roll) for d, roll in rolls.items()}
    wrong = {which: own + 1 for which, own in getattr(revealed[0], kind).items()}
    revealed[0] = RevealedShares(**{"masks": revealed[0].masks, "keys": revealed[0].keys} | {kind: wrong})
    with pytest.raises(SecureSumError, match=r"wrong; begin the round anew|do not belong together"):
        server.total(revealed)


@pytest.mark.parametrize("liar", [0, 3, 4])
def test_one_liar_is_found_where_the_shares_of_others_suffice(liar):
    """Of its shares of masks and of keys; five of six are in the sum, and four shares give a secret back."""
    devices, server, _, handed = met(6, 0.66)
    own = {d: ZEROS + np.uint64(d) for d in devices}
    rolls = roll_of(server, {d: devices[d].mask(found, own[d], 2) for d, found in handed.items() if d != 5})
    revealed = {d: devices[d].reveal(roll) for d, roll in rolls.items()}
    found = revealed[liar]
    revealed[liar] = RevealedShares(
        masks={which: share ^ 1 for which, share in found.masks.items()},
        keys={which: share ^ 1 for which, share in found.keys.items()},
    )
    assert server.total(revealed).tolist() == [10] * len(ZEROS) and server.wrong <= {liar}


def test_a_server_refuses_what_was_not_agreed():
    devices, server, _, handed = met()
    with pytest.raises(WireError, match="device 1 sent 3 masked numbers of 2 bytes; 4 of 2"):
        server.add(1, MaskedVector(values=ZEROS[:3], width=2))
    with pytest.raises(WireError, match="device 0 sent shares for others"):
        server.hand_on({0: SealedShares(boxes={1: bytes(82)})})
    roll_of(server, {d: devices[d].mask(found, ZEROS, 2) for d, found in handed.items()})
    with pytest.raises(WireError, match="device 2 revealed other shares"):
        server.total({2: RevealedShares(masks={0: 1}, keys={})})


KEY = bytes(range(32))
MESSAGES = {
    Advert: Advert(box=KEY, mask=KEY[::-1]),
    Neighbours: Neighbours(adverts={2: Advert(box=KEY, mask=KEY), 70000: Advert(box=KEY, mask=KEY)}),
    SealedShares: SealedShares(boxes={1: bytes(82), 9: bytes(range(82))}, fingerprint=KEY),
    Roll: Roll(present=(1, 4), lost=(2,)),
    RevealedShares: RevealedShares(masks={3: PRIME - 1}, keys={1: 0, 8: 5}),
}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_messages_to_bytes_and_back(kind):
    body = encode_message(MESSAGES[kind])
    assert decode_message(body, kind, 3) == MESSAGES[kind]
    count = {Advert: 1, Neighbours: 2, SealedShares: 2}.get(kind, 3)
    assert len(body) == body_bytes(kind, count)
    with pytest.raises(WireError, match="of the size agreed"):
        decode_message(body, kind, count - 1)


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS), st.binary(max_size=300), st.integers(0, 5), st.integers(0, 9), st.integers(0, 4)
)
def test_a_damaged_body_is_refused_with_one_error(kind, rest, number, width, count):
    """Bytes at random, and behind a right head: a message, or an error of ours."""
    for body in (rest, b"SFS1" + bytes([number, width, 0, 0]) + count.to_bytes(4, "little") + rest):
        try:
            decode_message(body, kind, 1000)
        except WireError:
            continue


def test_a_body_that_names_a_device_twice_is_refused():
    body = bytearray(encode_message(Roll(present=(1, 2), lost=())))
    body[17] = 1
    with pytest.raises(WireError, match="names a device twice"):
        decode_message(bytes(body), Roll, 5)


def test_without_the_library_it_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(
        SflamError, match=r"^privacy.secure_aggregation = true needs .*pip install 'sflam\[device-secure\]'$"
    ):
        installed.expect_installed()
