"""A body is decoded once, wherever it is needed: in one process as over a network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from sflam.codec import bodies
from sflam.codec.settings import QuantSettings
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import state_of
from sflam.sizes import HEADER_BYTES
from tests.learn.builders import adapted, local_fleet, parts_of, run
from tests.serve.threads import SIZES, Rig

FEW = LearnSettings(rounds=2, local_steps=2, batch=3, canonical=True, device="cpu")
FOUR = QuantSettings(bits_up=4, bits_down=4)


@pytest.fixture
def decodes(monkeypatch):
    """Body -> how often it was decoded."""
    found, read = Counter(), bodies._read_header

    def counting(body):
        found[bytes(body)] += 1
        return read(body)

    monkeypatch.setattr(bodies, "_read_header", counting)
    return found


@pytest.mark.parametrize(
    "labels, cut, options",
    [
        ("server", 1, {}),
        ("device", 1, {}),
        ("server", 0, {"cache": "server"}),
        ("device", 1, {"method": "sfl-v2", "server_update": "sequential"}),
    ],
)
def test_in_one_process(decodes, labels, cut, options):
    backbone, model, examples = adapted("bert")
    learn = replace(FEW, **options)
    fleet = local_fleet(
        backbone, model, examples, parts_of(SIZES), cut=cut, labels=labels, learn=learn, quant=FOUR
    )
    run(fleet, state_of(model), 2)
    steps = 2 * 2 * len(SIZES)
    assert len(decodes) >= (2 if labels == "server" else 4) * steps  # those of a step, and the adapters
    assert set(decodes.values()) == {1}


@pytest.mark.parametrize("labels", ["server", "device"])
def test_over_a_network(decodes, tmp_path, labels):
    Rig(tmp_path, "bert", cuts=(1, 0, 2), labels=labels, learn=FEW, quant=FOUR).run()
    assert len(decodes) >= 2 * 2 * 2 * len(SIZES)
    # Of an answer that is read while it comes the header is read alone; those of a step's two exchanges are alike.
    heads = {body for body in decodes if len(body) == HEADER_BYTES}
    assert {decodes[head] for head in heads} == {1 if labels == "server" else 2}
    assert {count for body, count in decodes.items() if body not in heads} == {1}
