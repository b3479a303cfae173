"""``learn.aggregation = "residual"`` served: every round begins from the frozen weights that the last one left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from sflam.errors import WireError
from sflam.serve.corrected_weights import take_over
from tests.learn.builders import IDENTITY, LEARN
from tests.serve.test_shared_trunk import dies
from tests.serve.threads import Rig, simulated

LOOP = replace(LEARN, rounds=3, batch=2, local_steps=2, canonical=True, aggregation="residual")
JOB = {"cuts": (1, 0, 2), "quant": IDENTITY, "learn": LOOP}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("kind", "labels"), [("vit", "server"), pytest.param("bert", "device", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("answered", [False, True])
def test_served_is_simulated_and_a_device_that_dies_gets_them_again(tmp_path, kind, labels, answered):
    """Device 2 dies within the second round: the new process goes on with that round, from weights of its own."""
    wanted, state = simulated(kind, labels=labels, **JOB)
    path = "/v1/rounds/1/2/steps/1" + ("" if labels == "server" else "/forward")
    rig = Rig(tmp_path, kind, labels=labels, links={2: dies(path, answered)}, **JOB)
    records, found = rig.run()
    assert rig.deaths == 1
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert [one.residual_bytes for one in records] == [one.residual_bytes for one in wanted]
    assert all(one.residual_bytes > 0 for one in records)


LAYERS = {"a": (2, 3), "b": (4, 1)}


@pytest.mark.parametrize(
    "sent",
    [
        {"a": torch.ones(2, 3)},
        {"a": torch.ones(2, 3), "b": torch.ones(1, 4)},
        {"a": torch.ones(2, 3), "b": torch.ones(4, 1), "c": torch.ones(1)},
        {"a": torch.ones(2, 3), "b": torch.ones(4, 1, dtype=torch.float64)},
        {"a": torch.ones(2, 3), "b": torch.full((4, 1), torch.nan)},
        None,
    ],
)
def test_weights_of_another_model_are_refused_and_none_is_taken(sent):
    held = {name: torch.zeros(shape) for name, shape in LAYERS.items()}
    body = b"\x07garbage" if sent is None else safetensors.torch.save(sent)
    with pytest.raises(WireError, match="corrected weights"):
        take_over(held, body)
    assert not any(weight.any() for weight in held.values())
