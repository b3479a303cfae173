"""A round's seconds are those of its steps, played one by one: a chain, a barrier at every step, or a relay."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.learn.methods import METHODS, timing_of
from sflam.sizes import HEADER_BYTES
from tests.simulate.builders import ran
from tests.simulate.test_books import assert_as_planned

PLAIN = (
    "learn.evaluate_every=0",
    "network.downlink_mbps=5",
    "network.server_kappa=1e-27",
    "network.bandwidth_mhz=1",
    "learn.batch=4",
    "learn.rounds=2",
)
TIMINGS = {
    "sflam": "chain",
    "sfl-v1": "chain",
    "sfl-v2": "barrier",
    "sflam-mixed": "barrier",
    "sl": "relay",
    "fedlora": "chain",
    "fedavg": "chain",
}


def test_every_method_names_its_timing(small):
    from sflam import config

    for name, timing in TIMINGS.items():
        assert timing_of(config.load(None, [*small, f"learn.method={name}"])) == timing
    assert all(timing_of(config.load(None, [*small, f"learn.method={name}"])) for name in METHODS)
    shared = config.load(None, [*small, "learn.trunk=shared"])
    assert timing_of(shared) == "barrier"


class Played:
    """One round, event by event, from what was charged for it and the mini-batches that were drawn."""

    def __init__(self, run, record):
        self.charge, self.devices = record.charge, list(record.participants)
        fleet = run.fleet.halves
        self.batches = {
            d: [len(own) for own in drawn] for d, drawn in fleet.drawn(record.round, self.devices).items()
        }
        planner, job = run.fleet.planner, run.job
        self.work, self.job = planner.workload, job
        self.rows = {d: sum(own) for d, own in self.batches.items()}
        adapters = [self.work.adapter_bits(cut) for cut in self.charge.cuts]
        bits = [bits + 8 * HEADER_BYTES for bits in adapters]
        self.rate = job.network.downlink_mbps * 1e6
        self.fetch = dict(zip(self.devices, np.array(bits) / self.rate, strict=True))
        self.hand = dict(
            zip(self.devices, np.array(self.charge.adapter_s) - np.array(bits) / self.rate, strict=True)
        )

    def part(self, name, device, step, share=1.0):
        """Return the s of a phase in a step: bytes and FLOP go by its rows."""
        seconds = dict(zip(self.devices, getattr(self.charge, name), strict=True))[device]
        return seconds * share * self.batches[device][step] / self.rows[device]

    def ahead(self, device):
        """Return the forward's share of what a device computes."""
        cut = dict(zip(self.devices, self.charge.cuts, strict=True))[device]
        return self.work.device_forward[cut] / (
            self.work.device_forward[cut] + self.work.device_backward[cut]
        )

    def sent(self, name, device, step):
        """Return the s of a step's body: its header takes part in it."""
        seconds = dict(zip(self.devices, getattr(self.charge, name), strict=True))[device]
        bits = [self.body(rows, up=name == "up_s") for rows in self.batches[device]]
        return seconds * bits[step] / sum(bits)

    def body(self, rows, *, up):
        """Return the bits of a body of so many rows."""
        if not rows:
            return 0.0
        bits = self.job.quant.bits_up if up else self.job.quant.bits_down
        labels = 32 * rows * up
        return rows * self.work.activation_bits(bits) / self.work.batch + 8 * HEADER_BYTES + labels

    def barrier(self):
        at = {d: self.fetch[d] for d in self.devices}  # each begins when its adapters are there
        steps = max(map(len, self.batches.values()))
        trunk = max(self.charge.server_s) / sum(self.rows.values())
        for step in range(steps):
            here = [d for d in self.devices if step < len(self.batches[d]) and self.batches[d][step]]
            begin = max(at.values()) if step else 0.0
            came = {}
            for d in here:
                start = at[d] if not step else begin
                came[d] = start + self.part("compute_s", d, step, self.ahead(d)) + self.sent("up_s", d, step)
            waiting = max(came.values()) if step else max(*came.values(), *at.values())
            done = waiting + trunk * sum(self.batches[d][step] for d in here)
            at = {d: done for d in self.devices}
            for d in here:
                at[d] = (
                    done + self.sent("down_s", d, step) + self.part("compute_s", d, step, 1 - self.ahead(d))
                )
        return max(at[d] + self.hand[d] for d in self.devices)

    def chain(self):
        """Return the s of the slowest device: the server's turn for all of them is at the start of each's wait."""
        charge, each = self.charge, {}
        for place, d in enumerate(self.devices):
            now = charge.server_s[place] + self.fetch[d]
            for step in range(len(self.batches[d])):
                now += (
                    self.part("compute_s", d, step)
                    + self.sent("up_s", d, step)
                    + self.sent("down_s", d, step)
                )
            each[d] = now + self.hand[d]
        return max(each.values())

    def relay(self):
        charge, now = self.charge, 0.0
        for place in np.argsort(charge.begin):
            assert charge.begin[place] == pytest.approx(now, abs=1e-12)
            d = self.devices[place]
            now += charge.server_s[place] + self.fetch[d] + self.hand[d]
            for step in range(len(self.batches[d])):
                now += (
                    self.part("compute_s", d, step)
                    + self.sent("up_s", d, step)
                    + self.sent("down_s", d, step)
                )
        return now


@pytest.mark.parametrize(
    "more",
    [
        ("learn.method=sfl-v2",),
        ("learn.method=sflam", "learn.trunk=shared", "learn.local_epochs=2"),
        ("learn.method=sflam", "learn.trunk=shared", "learn.local_steps=3", "fleet.cuts=[1,2,0]"),
        ("learn.method=sflam-mixed",),
        ("learn.method=sflam-mixed", "learn.local_steps=2", "plan.optimize=[]"),
        ("learn.method=sflam", "plan.timing=barrier"),
        ("learn.method=sflam",),
        ("learn.method=sfl-v2", "plan.timing=chain"),
        ("learn.method=sl",),
    ],
    ids=" ".join,
)
def test_what_is_charged_is_what_is_played(small, tmp_path, more):
    run = ran(small, tmp_path / "run", *PLAIN, *more)
    for record in run.records:
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        found = getattr(Played(run, record), timing_of(run.job))()
        assert record.charge.seconds == pytest.approx(found, rel=1e-9)


def test_waiting_is_idled_through_and_limited(small, tmp_path):
    """Static power runs over the whole round, and a deadline holds for it."""
    settings = (*PLAIN, "learn.method=sfl-v2", "network.static_power_w=0.3")
    free = ran(small, tmp_path / "free", *settings)
    for record in free.records:
        charge = record.charge
        assert charge.idle_j == pytest.approx(0.3 * charge.seconds * len(record.participants), rel=1e-12)
        own = np.array(charge.compute_s) + charge.up_s + charge.down_s + charge.server_s + charge.adapter_s
        assert (own < charge.seconds).any(), "nobody waits: the test shows nothing"
        assert max(charge.finish) < charge.seconds
    least = 0.97 * max(record.charge.seconds for record in free.records)
    held = ran(small, tmp_path / "held", *settings, f"plan.deadline={least}", "plan.late=drop")
    for record in held.records:
        assert_as_planned(record)
        assert record.charge.seconds <= least * (1 + 1e-9) and record.charge.late_s == 0


def test_chosen_bits_are_charged_in_the_stages_they_make(small, tmp_path):
    """Headers weigh the more in a stage the fewer bits a value has: shares of stages hang on the width."""
    more = ("learn.method=sflam-mixed", "data.sampling=global", "learn.local_steps=2", "plan.sensitivity=1")
    widths = ("plan.bits_least=2", "plan.bits_most=3", 'plan.optimize=["clock","bits"]')
    run = ran(small, tmp_path / "run", *PLAIN, *more, *widths)
    for record in run.records:
        assert_as_planned(record)
        assert max(record.charge.bits_up) < run.job.quant.bits_up
