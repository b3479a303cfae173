"""What a device may not send in a secure sum is refused by one answer, changes nothing, and costs others nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.errors import Refused, SecureSumError, WireError
from sflam.link.https_client import Link
from sflam.secure.bodies import HEAD, HEAD_BYTES, decode_message, encode_message
from sflam.secure.device_side import MaskingDevice
from sflam.secure.messages import PHASES, Advert, MaskedVector, Neighbours, Roll, SealedShares
from sflam.secure.server_side import SummingServer
from sflam.serve.dispatch import sealed
from sflam.serve.sums.open_sum import KINDS, OpenSum, Sums
from tests.serve.test_secure_sums import JOB
from tests.serve.threads import Rig, simulated

CONTEXT, LENGTH, WIDTH = b"sflam run r round 0 attempt 1", 6, 2
DOWN = {"keys": Neighbours, "shares": SealedShares, "masked": Roll}
pytestmark = pytest.mark.usefixtures("one_thread")


class Meddling(Link):
    """Sends everything but what is due first, and something else again once it was taken."""

    seen = ()

    def _once(self, method, path, body, headers):
        if "/sum/" not in path:
            return super()._once(method, path, body, headers)
        phase = path.rpartition("/")[2]
        if phase not in self.seen:
            self.seen = (*self.seen, phase)
            for other, status in self.others(phase, bytes(body)):
                found = super()._once(method, path, other, headers)
                assert found[0] == status and len(json.loads(found[2])) == 1, (phase, found)
            for other, status in (
                (path.replace("/0/1/", "/0/7/"), 409),
                (path.replace(phase, "total"), 404),
                (path.replace(phase, PHASES[-1] if phase == "keys" else "keys"), 409),
            ):
                found = super()._once(method, other, body if status != 409 else bytes(76), headers)
                assert found[0] in (status, 413, 422), (other, found)
        found = super()._once(method, path, body, headers)
        if found[0] < 300 and phase != PHASES[-1]:
            assert super()._once(method, path, _other(bytes(body)), headers)[0] in (409, 422)
            assert super()._once(method, path, body, headers) == found
        return found

    def others(self, phase, body):
        """Yield bodies that are not what was agreed, and the status of their refusal."""
        yield body + b"x", 413
        yield body[:-1], 422
        yield bytes(len(body)), 422
        yield body[:4] + bytes([(body[4] + 1) % 6]) + body[5:], 422
        yield body[:8] + (10**6).to_bytes(4, "little") + body[12:], 422
        if phase == "keys":
            yield body[:HEAD_BYTES] + bytes(64), 422  # of low order: nothing is agreed by it
            yield body[:HEAD_BYTES] + 2 * body[-32:], 422
        elif phase == "shares":
            yield body[:12] + bytes(32) + body[44:], 422  # no fingerprint
            yield body[:44] + (99).to_bytes(4, "little") + body[48:], 422
        elif phase == "masked":
            count = HEAD.unpack_from(body)[4]
            yield body[:5] + b"\x01" + body[6:8] + (2 * count).to_bytes(4, "little") + body[12:], 422
        else:
            yield body[:12] + (99).to_bytes(4, "little") + body[16:], 422
            yield body[:16] + b"\x00" + body[17:], 422
            yield body[:16] + b"\x07" + body[17:], 422


def _other(body):
    return body[:-1] + bytes([body[-1] ^ 1])


def test_a_device_that_meddles_in_every_phase_changes_nothing(tmp_path):
    job = JOB | {"learn": replace(JOB["learn"], rounds=1)}
    rig = Rig(tmp_path, "bert", links={1: Meddling}, **job)
    records, found = rig.run()
    assert records[0].secured.devices == (0, 1, 2, 3) and records[0].measured.openings == 1
    wanted = simulated("bert", **job)[1]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_adapters_in_the_clear_are_refused(tmp_path):
    class Plain(Link):
        """A device that knows of no sums."""

        asked = None

        def _once(self, method, path, body, headers):
            if path.endswith("/sum/keys") and self.asked is None:
                type(self).asked = super()._once("PUT", path.replace("sum/keys", "adapters"), b"x", headers)
            return super()._once(method, path, body, headers)

    Rig(tmp_path, "bert", links={1: Plain}, **JOB | {"learn": replace(JOB["learn"], rounds=1)}).run()
    assert Plain.asked[0] == 403 and b"this run sums adapters under masks" in Plain.asked[2]


class Scene:
    """A sum of a few devices, message by message."""

    def __init__(self, count=4):
        self.devices = {d: MaskingDevice(d, CONTEXT, 0.66) for d in range(count)}
        self.sum = OpenSum(0, 1, SummingServer(CONTEXT, 0.66, LENGTH, WIDTH))
        self.own = {d: np.arange(LENGTH, dtype=np.uint64) + np.uint64(d) for d in self.devices}
        self.now = 0.0

    def send(self, device, phase, message=None):
        message = message or self.due(device, phase)
        body = encode_message(message)
        kind, most, _ = self.sum.agreed(device, phase)
        found = decode_message(body, KINDS[phase], most)
        assert len(body) == self.sum.size(device, phase) and isinstance(found, kind)
        self.sum.check(device, phase, found, sealed(body))
        self.sum.take(device, phase, found, sealed(body))

    def due(self, device, phase):
        own = self.devices[device]
        if phase == "keys":
            return own.advertise()
        before = PHASES[PHASES.index(phase) - 1]
        came = decode_message(self.sum.answer(device, before), DOWN[before], 100)
        if phase == "masked":
            return own.mask(came, self.own[device], WIDTH)
        return own.share(came) if phase == "shares" else own.reveal(came)

    def all(self, phase, but=()):
        for device in self.devices:
            if device not in but and (phase == "keys" or device in self.sum.members):
                self.send(device, phase)
        if phase == "keys":
            self.sum.introduce(self.devices, self.now)
        elif phase != "unmasking":
            self.sum.end(self.now)


def test_it_is_the_sum_of_those_whose_numbers_came():
    scene = Scene()
    scene.all("keys")
    scene.all("shares")
    scene.all("masked", but=(2,))
    scene.all("unmasking", but=(2, 3))
    with pytest.raises(SecureSumError, match="2 of 4 devices are left"):
        scene.sum.total()
    scene.send(3, "unmasking")
    found = scene.sum.total()
    assert found.devices == (0, 1, 3) and found.total.tolist() == [3 * n + 4 for n in range(LENGTH)]


def test_who_is_waited_for():
    scene = Scene()
    scene.all("keys")
    here, patience = {0, 1, 2, 3}, 10.0
    assert not scene.sum.done(5.0, here, patience)
    for device in (0, 1, 2):
        scene.send(device, "shares")
    assert not scene.sum.done(5.0, here, patience)
    assert scene.sum.done(5.0, {0, 1, 2}, patience), "one that is away is not waited for"
    assert scene.sum.done(11.0, here, patience), "nor one that had its time"
    with scene.sum.receiving(3):
        assert not scene.sum.done(11.0, here, patience) and scene.sum.done(41.0, here, patience)
    scene.sum.back(3)
    assert scene.sum.done(5.0, here, patience), "nor one that lost its secrets"
    scene.sum.end(5.0)
    with pytest.raises(Refused, match="device 3 has no part in the phase 'masked'"):
        scene.sum.agreed(3, "masked")
    with pytest.raises(Refused, match="no part in the phase 'shares'"):
        scene.sum.agreed(3, "shares")
    assert scene.sum.size(0, "shares"), "a body that came may come again"


def test_keys_of_another_device_are_refused():
    scene = Scene()
    scene.send(0, "keys")
    copied = scene.devices[0].advertise()
    for advert in (copied, Advert(box=scene.devices[1].advertise().box, mask=copied.box)):
        with pytest.raises(WireError, match="has this public key already"):
            scene.send(1, "keys", advert)
    assert not scene.sum.came(1, "keys")


def test_a_sum_that_is_off_refuses_all_who_wait():
    scene, sums = Scene(), Sums()
    assert sums.width == 0
    sums.begin(scene.sum)
    scene.send(0, "keys")
    assert scene.sum.answer(0, "keys") is None and sums.width == WIDTH
    sums.begin(Scene().sum)
    assert scene.sum.over["keys"].done()
    with pytest.raises(Refused, match="the round is over"):
        scene.sum.answer(0, "keys")
    with pytest.raises(Refused, match="round 3, attempt 9 has no secure sum now"):
        sums.at(3, 9)


@given(body=st.binary(max_size=200), phase=st.sampled_from(PHASES), most=st.integers(0, 5))
def test_any_bytes_are_a_message_or_one_error(body, phase, most):
    for raw in (body, b"SFS1" + bytes([PHASES.index(phase)]) + body):
        try:
            assert isinstance(decode_message(raw, KINDS[phase], most), KINDS[phase])
        except WireError as error:
            assert "\n" not in str(error)


def test_numbers_that_codes_cannot_add_up_to_have_the_round_made_again(tmp_path, monkeypatch):
    """A device with a number beyond its codes: the sum is thrown away, and nothing of it moves the adapters."""
    job = JOB | {"learn": replace(JOB["learn"], rounds=1)}
    mask, times = MaskingDevice.mask, []

    def wild(self, came, vector, width):
        if self.device == 2 and not times:
            times.append(1)
            vector = vector.copy()
            vector[0] += np.uint64(1 << (8 * width - 1))
        return mask(self, came, vector, width)

    monkeypatch.setattr(MaskingDevice, "mask", wild)
    rig = Rig(tmp_path, "bert", **job)
    records, found = rig.run()
    assert records[0].measured.openings == 2
    assert any("a device added others" in line for line in rig.lines)
    wanted = simulated("bert", **job)[1]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_masked_numbers_of_another_width_are_refused():
    scene = Scene()
    scene.all("keys")
    scene.all("shares")
    wide = MaskedVector(values=np.zeros(LENGTH // 2, np.uint64), width=2 * WIDTH)
    with pytest.raises(WireError, match="3 masked numbers of 4 bytes; 6 of 2 were agreed"):
        scene.sum.check(0, "masked", wide, b"")
