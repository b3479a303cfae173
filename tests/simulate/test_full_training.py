"""Every weight trained, the patch embedding on the device too: what is planned is what is charged, at any cut."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sflam.planner.cell import measured, training_of
from sflam.sizes import adapter_body_bytes
from tests.simulate.builders import ran
from tests.simulate.test_books import PLAIN, assert_as_planned

FULL = ("model.trainable=full", "learn.lr=1e-4")


@pytest.mark.parametrize(
    "more",
    [("model.cut=0",), ("model.cut=1",), ("model.cut=0", "model.labels=device"), ("fleet.cuts=[0, 1, 2]",)],
    ids=" ".join,
)
def test_what_is_charged_is_what_was_planned(small, tmp_path, more):
    run = ran(small, tmp_path / "run", *PLAIN, *FULL, *more, "learn.rounds=2")
    work = measured(run.job)
    cuts = run.job.fleet.cuts or (run.job.model.cut,) * 3
    for record in run.records:
        assert_as_planned(record)
        charge = record.charge
        assert charge.cuts == cuts and all(payload > 0 for payload in charge.payload_down), (
            "a gradient, at cut 0 too"
        )
        if run.job.model.labels == "server":
            bodies = sum(adapter_body_bytes(work.adapter_values[cut]) for cut in cuts)
            assert record.adapter_bytes_up == record.adapter_bytes_down == bodies


def test_a_trainable_embedding_has_a_backward_and_an_answer(small, tmp_path):
    run = ran(small, tmp_path / "run", *PLAIN, *FULL, "model.cut=0", "learn.rounds=1")
    job = run.job
    full, plain = measured(job), measured(replace(job, model=replace(job.model, trainable="lora")))
    assert full.device_backward[0] == full.device_forward[0] > 0 == plain.device_backward[0]
    assert full.returns(0) and not plain.returns(0)
    assert full.device_memory[0] > plain.device_memory[0]
    assert training_of(run.job).full
    wholes = {a + b for a, b in zip(full.device_backward, full.server_backward, strict=True)}
    assert len(wholes) == 1
