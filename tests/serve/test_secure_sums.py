"""Sums under masks over a network: the adapters of the simulation, bit for bit, whoever is lost at any phase."""

from __future__ import annotations

import http.client
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import ServeError
from sflam.learn.attendance import attendance_of
from sflam.link.https_client import Link
from sflam.model.adapters import state_of
from sflam.privacy.settings import PrivacySettings
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of, run
from tests.serve.threads import Died, Rig, simulated

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (7, 12, 5, 9)
LEAN = (0, 1, 2, 3)
JOB = {
    "cuts": (1, 1, 1, 1),
    "quant": QuantSettings(bits_up=4, bits_down=4, bits_adapters=8, adapters_scale="common"),
    "learn": replace(LEARN, canonical=True, optimizer="adam", local_steps=2),
    "privacy": PrivacySettings(secure_aggregation=True),
    "labels": "server",
    "sizes": SIZES,
}
KINDS = pytest.mark.parametrize("lean", [(), LEAN], ids=["torch", "lean"])
LEAN_SLOWLY = pytest.mark.parametrize(
    "lean", [(), pytest.param(LEAN, marks=pytest.mark.slow)], ids=["torch", "lean"]
)


def equal(found, wanted):
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


def attended(records, **job):
    """Return the records and adapters of a simulation to whose rounds just those came who came to these."""
    options = {name: value for name, value in job.items() if name != "sizes"}
    backbone, model, examples = adapted("bert")
    fleet = local_fleet(backbone, model, examples, parts_of(job["sizes"]), **options)
    fleet.attendance = attendance_of(records)
    return run(fleet, state_of(model), job["learn"].rounds)


def dying(at, after=False):
    """Return the class of a link whose device dies once, before or ``after`` the answer of a phase."""

    class Dying(Link):
        due = True

        def _once(self, method, path, body, headers):
            if not (type(self).due and path.endswith(f"/sum/{at}")):
                return super()._once(method, path, body, headers)
            found = super()._once(method, path, body, headers) if after else None
            if found is None or found[0] < 300:
                type(self).due = False
                raise Died
            return found

    return Dying


class EveryThird(Link):
    """Loses every third answer."""

    asked = 0

    def _once(self, method, path, body, headers):
        self.asked += 1
        found = super()._once(method, path, body, headers)
        if self.asked % 3 == 0:
            raise http.client.RemoteDisconnected("lost on purpose")
        return found


@KINDS
@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_served_is_simulated_bit_for_bit(tmp_path, labels, lean):
    job = JOB | {"labels": labels}
    records, found = Rig(tmp_path, "bert", lean=lean, **job).run()
    wanted_records, wanted = simulated("bert", **job)
    if lean:  # its arithmetic is its own: the sum of one device's codes may differ by a step of the grid
        assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-2
    else:
        assert equal(found, wanted)
    assert [record.secured for record in records] == [record.secured for record in wanted_records]
    sent = [[(r.adapter_bytes_up, r.adapter_bytes_down) for r in each] for each in (records, wanted_records)]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    ("phase", "after", "there"),
    [
        ("keys", False, (0, 1, 3)),
        ("keys", True, (0, 1, 3)),
        ("shares", True, (0, 1, 3)),
        ("masked", False, (0, 1, 3)),
        ("masked", True, (0, 1, 2, 3)),
        ("unmasking", False, (0, 1, 2, 3)),
        ("unmasking", True, (0, 1, 2, 3)),
    ],
)
def test_a_device_lost_at_any_phase(tmp_path, phase, after, there):
    """It comes back at once, and its secrets do not: it is in the sum where its numbers had come, and else is not."""
    links = {2: dying(phase, after)}
    away = (
        phase == "keys" and not after
    )  # the round itself would wait for it, to take part with keys it makes anew
    rig = Rig(tmp_path, "bert", links=links, away=away, quorum=3, **JOB)
    records, found = rig.run()
    assert rig.deaths == 1
    assert [record.participants for record in records] == [there, (0, 1, 2, 3)]
    assert records[0].secured.devices == there and records[0].measured.openings == 1
    assert equal(found, attended(records, **JOB)[1])


@LEAN_SLOWLY
def test_lost_answers_are_asked_for_again_and_nothing_is_counted_twice(tmp_path, lean):
    rig = Rig(tmp_path, "bert", links=dict.fromkeys(range(4), EveryThird), lean=lean, **JOB)
    records, found = rig.run()
    calm_records, calm = Rig(tmp_path / "calm", "bert", lean=lean, **JOB).run()
    assert equal(found, calm)
    assert [r.adapter_bytes_up for r in records] == [r.adapter_bytes_up for r in calm_records]


def test_too_few_for_the_threshold_have_the_round_opened_again(tmp_path):
    """Two of four die before their numbers are there: no sum of two is made, and the next opening has all."""
    links = {1: dying("masked"), 2: dying("masked")}
    rig = Rig(tmp_path, "bert", links=links, **JOB)
    records, found = rig.run()
    assert rig.deaths == 2 and records[0].measured.openings == 2
    assert records[0].secured.devices == (0, 1, 2, 3)
    assert equal(found, simulated("bert", **JOB)[1])
    assert "2 of 4 devices are left of a secure sum, and it takes 3" in "\n".join(rig.lines)


def test_too_few_twice_end_the_run_with_one_sentence(tmp_path):
    class Never(Link):
        """Its device dies in every sum."""

        def _once(self, method, path, body, headers):
            if path.endswith("/sum/shares"):
                raise Died
            return super()._once(method, path, body, headers)

    rig = Rig(tmp_path, "bert", links={1: Never, 2: Never}, lives=5, **JOB)
    with pytest.raises(
        ServeError,
        match=r"^round 1, attempt 2: no secure sum was made: 2 of 4 devices are left .*twice in a row",
    ):
        rig.run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "learn"),
    [
        ("global", {}),
        ("local", {"weights": "samples"}),
        ("local", {"local_steps": 0, "local_epochs": 1}),
        ("local", {"method": "sflam-mixed"}),
        ("poisson", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "plain",
)
def test_devices_count_as_they_do_in_a_simulation(tmp_path, sampling, learn):
    """A device finds its weight by itself, and the server checks their sum by its own."""
    job = JOB | {"sampling": sampling, "learn": replace(JOB["learn"], **learn)}
    records, found = Rig(tmp_path, "bert", **job).run()
    assert all(record.measured.openings == 1 for record in records)
    assert equal(found, simulated("bert", **job)[1])
