"""A plan's cuts and bits reach the devices, per device and per round; what a round took comes back into its record."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import ConfigError, ServeError
from sflam.learn.settings import FleetSettings
from sflam.link.https_client import Link
from sflam.network import trace
from sflam.records import history
from sflam.records.served_round import trace_csv
from sflam.serve.pace import Pace
from sflam.serve.round_planner import RoundChoice
from tests.learn.builders import IDENTITY, LEARN, assert_equal_states, with_bits
from tests.serve.threads import Died, Rig, simulated
from tests.tiny import DEPTH

FEW = replace(LEARN, canonical=True, local_steps=2)
JOB = {"cuts": (1, 2, 0), "labels": "server", "quant": QuantSettings(bits_up=4, bits_down=4), "learn": FEW}
PLANS = {0: {0: (2, 3), 1: (4, 16), 2: (7, 1)}, 1: {0: (8, 8), 1: (3, 5), 2: (1, 2)}}


class Fixed:
    """A planner whose plans are given."""

    paces, limit = False, float("inf")

    def __init__(self, plans):
        self.plans = plans

    def probes(self, devices):
        return {}

    def decide(self, number, shares):
        return RoundChoice(planned=number, bits=self.plans[number], rate={})

    def expected(self, number, shares):
        return None

    def learn(self, record):
        pass


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_plan_for_every_round_served_and_simulated(tmp_path, labels):
    job = JOB | {"labels": labels, "learn": replace(FEW, local_steps=0, local_epochs=1)}

    def planned(local, number):
        local.place(with_bits(local, PLANS[number]))
        return (0, 1, 2)

    _, wanted = simulated("vit", selected=planned, **job)
    rig = Rig(tmp_path, "vit", planner=Fixed(PLANS), **job)
    records, found = rig.run()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for record, plan in zip(records, PLANS.values(), strict=True):
        assert list(zip(record.measured.bits_up, record.measured.bits_down, strict=True)) == list(
            plan.values()
        )


def test_what_a_round_took_is_in_its_record_and_a_trace_for_planning(tmp_path):
    records, _ = Rig(tmp_path, "vit", **JOB).run()
    for record in records:
        one = record.measured
        assert one.openings == 1 and one.cuts == (1, 2, 0) and one.left_out == ()
        assert all(0 < end <= one.seconds for end in one.finish) and 0 < one.server_s < one.seconds
        assert sum(one.bytes_up) == record.bytes_up + record.adapter_bytes_up
        assert sum(one.bytes_down) == record.bytes_down + record.adapter_bytes_down
        assert all(8 * size > bits > 0 for size, bits in zip(one.bytes_up, one.payload_up, strict=True))
        assert history.record_from_dict(json.loads(json.dumps(history.record_to_dict(record)))) == record
    rounds = [(record.participants, record.measured) for record in records]
    link = {"upload_s": (0.02, 0.0), "link_s": (0.01, 0.0)}
    rounds[0] = ((0, 2), replace(rounds[0][1], bytes_up=(1000, 3000), **link))
    (tmp_path / "trace.csv").write_text(trace_csv(rounds))
    found = trace.read(tmp_path / "trace.csv")
    assert found.names == ("0", "1", "2") and found.kind == "rate" and found.values.shape == (2, 3)
    assert found.values[0, 0] == pytest.approx(8e5) and found.values[0, 1] == found.values[1, 1]
    assert found.contention[0].tolist() == [2, 0, 1] and found.active[0].tolist() == [True, False, True]


def test_what_a_history_says_of_a_served_round_is_checked():
    result = history.record_to_dict(history.RoundRecord(round=0, loss=1.0)) | {"measured": {"seconds": 1.0}}
    with pytest.raises(ValueError, match="measured misses"):
        history.record_from_dict(result)


@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_device_keeps_what_its_frozen_half_makes(tmp_path, labels):
    learn = replace(LEARN, cache="device", local_epochs=2)
    options = {"cuts": (0, 0, 0), "labels": labels, "quant": IDENTITY, "learn": learn}
    _, wanted = simulated("bert", **options)
    _, found = Rig(tmp_path, "bert", **options).run()
    assert_equal_states(found, wanted)


@pytest.mark.parametrize(
    ("labels", "cache", "kind"),
    [("server", "device", "bert"), ("device", "off", "vit"), ("server", "off", "gpt2-lm")],
)
def test_a_half_that_is_frozen_at_any_cut_is_served(tmp_path, labels, cache, kind):
    """Its adapters, which are not trained, come with the device's part of the model."""
    learn = replace(LEARN, device_half="frozen", cache=cache, local_epochs=2)
    options = {"cuts": (2, 2, 2), "labels": labels, "quant": IDENTITY, "learn": learn}
    wanted, state = simulated(kind, **options)
    records, found = Rig(tmp_path, kind, **options).run()
    assert_equal_states(found, state)
    for mine, theirs in zip(records, wanted, strict=True):
        assert (mine.bytes_up, mine.bytes_down) == (theirs.bytes_up, theirs.bytes_down)
        assert mine.adapter_bytes_up == theirs.adapter_bytes_up


@pytest.mark.parametrize("half", ["frozen", "trained"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_every_block_on_devices_is_served(tmp_path, labels, half):
    """With labels at home a server has nothing of the model, neither weights nor gradients."""
    learn = replace(LEARN, device_half=half)
    options = {"cuts": (DEPTH,) * 3, "labels": labels, "quant": IDENTITY, "learn": learn}
    wanted, state = simulated("vit", **options)
    records, found = Rig(tmp_path, "vit", **options).run()
    assert_equal_states(found, state)
    for mine, theirs in zip(records, wanted, strict=True):
        assert (mine.bytes_up, mine.bytes_down) == (theirs.bytes_up, theirs.bytes_down)


class NeverDone(Link):
    """A device that never delivers."""

    def _once(self, method, path, body, headers):
        if method == "PUT":
            raise Died
        return super()._once(method, path, body, headers)


def test_a_quorum_missed_twice_stops_the_run_with_advice(tmp_path):
    rig = Rig(tmp_path, "vit", links={1: NeverDone}, away=True, lives=2, **JOB)
    select = rig.fleet.select

    def hurried(round):
        devices = select(round)
        rig.fleet.pace = Pace(1000.0, 0.5)  # the others have all the time they need: quorum is all three
        return devices

    rig.fleet.select = hurried
    with pytest.raises(
        ServeError, match=r"[012] of at least 3 devices delivered within .*twice.*--quorum.*--resume"
    ):
        rig.run()


def test_bits_of_devices_are_one_for_each():
    with pytest.raises(ConfigError) as found:
        FleetSettings(devices=2, bits_up=(4,), bits_down=(0, 17))
    assert len(found.value.problems) == 2
