"""``model.trainable = "full"`` served: every weight of a device's half travels, as adapters would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.model.settings import ModelSettings
from tests.learn.builders import IDENTITY, LEARN
from tests.serve.threads import Rig, simulated

LOOP = replace(LEARN, rounds=2, batch=2, local_steps=2, canonical=True)
JOB = {"cuts": (1, 0, 2), "quant": IDENTITY, "learn": LOOP, "trained": ModelSettings(trainable="full")}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["vit", pytest.param("bert", marks=pytest.mark.slow)])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_served_is_simulated(tmp_path, kind, labels):
    wanted, state = simulated(kind, labels=labels, **JOB)
    records, found = Rig(tmp_path, kind, labels=labels, **JOB).run()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert [r.bytes_up for r in records] == [r.bytes_up for r in wanted]
