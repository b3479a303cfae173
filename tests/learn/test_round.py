"""The round against the plain loop: same mathematics, same adapters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sflam.codec.settings import QuantSettings
from sflam.learn.evaluate import Score, evaluate
from sflam.learn.examples import Examples
from sflam.learn.round import train
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import state_of
from sflam.model.settings import ModelSettings
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.learn.plain_loop import PlainLoop
from tests.tiny import KINDS, is_lm

UNIFORM = QuantSettings(scheme="uniform", bits_up=5, bits_down=6, bits_adapters=32)


def compare(
    kind, sizes, *, cuts, learn=LEARN, quant=IDENTITY, selected=0, rounds=2, dropout=0.0, model_settings=None
):
    backbone, model, examples = adapted(kind, dropout=dropout, model_settings=model_settings)
    parts = parts_of(sizes)
    oracle = PlainLoop(
        backbone,
        model,
        examples,
        parts,
        cuts=cuts,
        settings=FleetSettings(devices=len(parts), selected=selected),
        learn=learn,
        quant=quant,
        seed=3,
    )
    fleet = local_fleet(
        backbone, model, examples, parts, cuts=cuts, learn=learn, quant=quant, selected=selected
    )
    records, state = run(fleet, state_of(model), rounds)
    for number in range(rounds):
        oracle.round(number)
    assert_equal_states(state, oracle.state, 1e-5 if is_lm(kind) else 1e-9)
    return records


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quant", [IDENTITY, UNIFORM], ids=["identity", "uniform"])
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_stacked_equals_the_plain_loop(kind, quant, state):
    """Ragged batches, a device with fewer samples than a batch, devices that finish early, different cuts."""
    compare(kind, [11, 3, 8, 1], cuts=[1, 0, 3, 2], quant=quant, learn=replace(LEARN, state=state))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_stacked_equals_the_plain_loop_with_every_optimizer(optimizer):
    learn = replace(LEARN, optimizer=optimizer, momentum=0.9, state="keep")
    compare("vit", [9, 4], cuts=[1, 1], learn=learn)


def test_partial_participation_equals_the_plain_loop():
    learn = replace(LEARN, state="keep", local_steps=3)
    records = compare("vit", [6, 7, 5, 8], cuts=[1] * 4, learn=learn, selected=2, rounds=4)
    assert all(len(record.participants) == 2 for record in records)
    assert len({record.participants for record in records}) > 1


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2"])
@pytest.mark.parametrize("cut", [0, 2, 3])
def test_one_device_with_dropout_equals_the_whole_model_reseeded_at_the_cut(kind, cut):
    """One mask per step and side: the backward sees the masks that the loss saw."""
    compare(kind, [12], cuts=[cut], dropout=0.3, model_settings=ModelSettings(rank=2, dropout=0.2))


def test_device_halves_with_dropout_equal_the_plain_loop():
    """Every device draws its own masks; with cut L no dropout is left on the server but the head's (none here)."""
    compare("vit", [6, 5, 3], cuts=[3, 3, 3], dropout=0.3)


@pytest.mark.parametrize(("every", "due"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (0, [4]), (9, [4])])
def test_the_model_is_evaluated_when_it_is_due(every, due):
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of([4]), learn=replace(LEARN, local_steps=1))
    asked = iter(range(5))
    rounds = train(fleet, state_of(model), lambda _: Score(0.1 * next(asked), 0.5), range(5), every)
    records = [record for record, _ in rounds]
    assert [record.round for record in records if record.accuracy is not None] == due
    assert [record.round for record in records if record.test_loss is not None] == due


def test_evaluation_counts_every_class_and_does_not_depend_on_the_order():
    backbone, model, examples = adapted("bert")
    whole, by_few = evaluate(model, examples), evaluate(model, examples, rows=7)
    assert whole.accuracy == by_few.accuracy and whole.per_class == by_few.per_class
    assert whole.loss == pytest.approx(by_few.loss, rel=1e-6)
    labels = examples.dataset.labels
    mix = np.bincount(labels, minlength=len(whole.per_class)) / len(labels)
    assert mix @ np.array(whole.per_class) == pytest.approx(whole.accuracy)
    absent = Examples(replace(examples.dataset, classes=(*examples.dataset.classes, "new")), backbone)
    assert evaluate(model, absent).per_class[-1] is None
