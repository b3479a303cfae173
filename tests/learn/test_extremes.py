"""The edges of what a round may be asked to do, and evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import DataError
from sflam.learn.evaluate import Score, evaluate
from sflam.learn.examples import Examples
from sflam.learn.methods import METHODS
from sflam.learn.precision import draws_dropout
from sflam.learn.round import train
from sflam.learn.selection import select_devices
from sflam.learn.settings import FleetSettings
from sflam.model.adapters import load_state, state_of
from tests.learn.builders import LEARN, adapted, dataset, local_fleet, parts_of, run
from tests.tiny import DEPTH, KINDS, is_lm, tiny, whole_arguments


@pytest.mark.parametrize("cut", [0, DEPTH])
@pytest.mark.parametrize("sizes", [[1], [7], [1] * 40])
@pytest.mark.parametrize("batch", [1, 5])
def test_extremes_train(cut, sizes, batch):
    """No block or every block on the device, one device or many, batches of one and a ragged last one."""
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    learn = replace(LEARN, batch=batch)
    fleet = local_fleet(
        backbone, model, examples, parts_of(sizes), cut=cut, learn=learn, quant=QuantSettings()
    )
    start = state_of(model)
    (record,), state = run(fleet, start, 1)
    assert record.samples == sum(sizes)
    assert record.device_steps == sum(-(-size // batch) for size in sizes)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert any(not torch.equal(state[name], start[name]) for name in start)


def test_a_hundred_devices_share_a_step():
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    parts = [np.array([k % 60, (k + 1) % 60]) for k in range(100)]
    (record,), _ = run(
        local_fleet(backbone, model, examples, parts, quant=QuantSettings()), state_of(model), 1
    )
    assert record.device_steps == 100 and record.samples == 200


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.split])
@pytest.mark.parametrize("kind", KINDS)
def test_training_learns(kind, method):
    """Four samples, learned by heart by every method and family; a random frozen vocabulary learns slowly."""
    backbone, model, examples = adapted(kind)
    learn = replace(LEARN, method=method, local_steps=12, lr=1e-2, clip=1.0)
    fleet = local_fleet(backbone, model, examples, parts_of([2, 2]), learn=learn)
    losses = []
    for record, _ in train(fleet, state_of(model), lambda _: Score(0.0, 0.0), range(12)):
        losses.append(record.loss)
        if losses[-1] < (0.97 if is_lm(kind) else 0.5) * losses[0]:
            return
    pytest.fail(f"losses of {len(losses)} rounds are {losses}")


def test_evaluation_joins_the_averaged_halves():
    """Not the device half of the round's start, nor one device's: the average of both sides."""
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of([6, 5]), learn=replace(LEARN, lr=0.1))
    start = state_of(model)

    def score(state):
        load_state(model, state)
        return evaluate(model, examples, rows=7)

    ((record, state),) = train(fleet, start, score, range(1))
    assert record.test_loss == score(state).loss
    device_names = set(fleet.devices.segment.names(1))
    assert device_names and device_names < state.keys()
    stale = {name: start[name] if name in device_names else state[name] for name in state}
    own = fleet.devices.segment.stack.read(0)
    alone = {name: own[name] if name in device_names else state[name] for name in state}
    for wrong in (stale, alone, start):
        assert record.test_loss != pytest.approx(score(wrong).loss, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_the_hugging_face_loss(kind):
    _, model, examples = adapted(kind)
    model.eval()
    indices = np.arange(10)
    one = examples.take(indices)
    with torch.no_grad():
        out = model(**whole_arguments({"inputs": one.inputs, "lengths": one.lengths, "labels": one.labels}))
    score = evaluate(model, Examples(examples.dataset.take(indices), tiny(kind), examples.spec), rows=10)
    assert score.loss == pytest.approx(float(out.loss), rel=1e-5)
    if is_lm(kind):
        assert score.perplexity == pytest.approx(np.exp(float(out.loss)), rel=1e-4)
    else:
        assert score.accuracy == float((out.logits.argmax(-1) == one.labels).double().mean())


def test_selection_is_seeded_and_without_replacement():
    settings = FleetSettings(devices=9, selected=4)
    rounds = [select_devices(settings, 1, number) for number in range(30)]
    assert all(len(set(chosen)) == 4 and list(chosen) == sorted(chosen) for chosen in rounds)
    assert rounds == [select_devices(settings, 1, number) for number in range(30)]
    assert rounds != [select_devices(settings, 2, number) for number in range(30)]
    assert {device for chosen in rounds for device in chosen} == set(range(9))


def test_dropout_is_found_wherever_it_hides():
    for kind in KINDS:
        assert not draws_dropout(tiny(kind).model)
        assert draws_dropout(tiny(kind, dropout=0.1).model)


def test_a_model_is_not_fed_what_it_cannot_read():
    image, text = tiny("vit"), tiny("bert")
    with pytest.raises(DataError, match="reads images but data 'random' holds texts"):
        Examples(dataset("bert"), image)
    with pytest.raises(DataError, match="reads texts but data 'random' holds images"):
        Examples(dataset("vit"), text)
    words = dataset("bert")
    words.inputs[3, 1] = 50
    with pytest.raises(DataError, match="token id 50, but the vocabulary of model 'bert' ends at 49"):
        Examples(words, text)
    words = dataset("gpt2")
    words.inputs[7, words.lengths[7] - 1] = 0
    with pytest.raises(
        DataError, match="row 7 of data 'random' ends with token id 0, which pads rows of model 'gpt2'"
    ):
        Examples(words, tiny("gpt2"))
    text.model.config.max_position_embeddings = 9
    with pytest.raises(DataError, match="rows of 10 tokens, but model 'bert' sees at most 9"):
        Examples(dataset("bert"), text)


def test_padding_is_the_models_own_whatever_the_file_padded_with():
    """GPT-2 as published has no pad; a file may pad with any id, and what stands there changes nothing."""
    backbone, model, _ = adapted("gpt2")
    scores = []
    for filler in (0, 17):
        backbone.model.config.pad_token_id = None
        words = dataset("gpt2")
        words.inputs[np.arange(10)[None, :] >= words.lengths[:, None]] = filler
        words.inputs[words.inputs == 2] = 3  # 2 ends texts in this vocabulary, and becomes the pad
        scores.append(evaluate(model, Examples(words, backbone)).loss)
        assert backbone.model.config.pad_token_id == 2
    assert scores[0] == scores[1]
