"""Prompts and answers: the answers alone are learnt, whole or split, here or over a network, and generated again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import sflam
from sflam import config
from sflam.data.instructions import answered
from sflam.errors import ConfigError, DataError, WireError
from sflam.learn.drawing import drawn
from sflam.learn.exchange import Position, token_labels
from sflam.link import contract
from sflam.model.adapters import load_state, parameters_of, state_of
from sflam.model.dummy_inputs import with_mask
from sflam.model.loss import IGNORED
from tests.conftest import SHORT, Cli, assert_refused
from tests.data.preprocessors import preprocessor
from tests.reviews import write_asked

HEAD = ("model.trainable=lora+head", "learn.lr=0.01")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    write_asked(folder)
    return folder


def job_of(shelf: Path, *settings: str) -> config.Job:
    asked = (
        "data.label=",
        "data.input=ask",
        "data.answer=reply",
        "data.partition=iid",
        "quant.scheme=identity",
    )
    where = (f"model.name={shelf / 'gpt2-lm'}", f"data.name={shelf / 'asked.jsonl'}")
    return config.load(None, [*SHORT, *asked, *where, *settings])


def test_what_is_given_has_no_label_and_what_is_learnt_its_token(shelf: Path, tmp_path: Path) -> None:
    run = sflam.start(job_of(shelf), tmp_path / "run")
    examples = run.assembly.halves.examples  # type: ignore[union-attr]
    data = examples.dataset
    assert data.prompts is not None and data.lengths is not None
    batch = examples.take(np.arange(20))
    for row, labels, given, length in zip(
        batch.inputs["input_ids"], batch.labels, data.prompts[:20], data.lengths[:20], strict=True
    ):
        assert (labels[:given] == IGNORED).all() and (labels[length:] == IGNORED).all()
        assert torch.equal(labels[given:length], row[given:length]) and labels[length - 1] == 3
        assert length - given == 4  # three words and the end
    assert len(token_labels(batch)) == data.lengths[:20].sum()


@pytest.mark.parametrize("labels", ["server", "device"])
def test_split_is_whole(shelf: Path, tmp_path: Path, labels: str) -> None:
    """A step of one device, unquantized, is a step of plain transformers with labels of -100 on what is given."""
    one = (
        "fleet.devices=1",
        "model.dtype=float64",
        "quant.bits_adapters=32",
        "learn.rounds=1",
        "learn.local_steps=1",
    )
    step = ("learn.optimizer=sgd", "learn.lr=0.5", "learn.batch=7", "model.cut=2", f"model.labels={labels}")
    run = sflam.start(job_of(shelf, *one, *step), tmp_path / "run")
    halves = run.assembly.halves
    assert halves is not None
    model, start = run.assembly.model, state_of(run.assembly.model)
    job, examples = run.job, halves.examples
    (drawn_rows,) = drawn(job.learn, examples, halves.parts[0], job.seed, 0, 0)
    batch = examples.take(drawn_rows)
    load_state(model, start)
    loss = model(**with_mask(batch.inputs, batch.lengths), labels=batch.labels).loss
    names = {parameter: name for name, parameter in parameters_of(model).items()}
    wanted = dict(zip(names.values(), torch.autograd.grad(loss, list(names)), strict=True))
    (record,) = run.rounds()
    assert record.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, gradient in wanted.items():
        moved = (start[name] - run.state[name]) / 0.5
        assert torch.allclose(moved, gradient, rtol=1e-5, atol=1e-9), name


def test_answers_are_learnt_and_generated(shelf: Path, tmp_path: Path, cli: Cli) -> None:
    job = job_of(
        shelf,
        "learn.rounds=12",
        "seed=1",  # ends far from the edge: greedy answers are the same whatever a processor rounds
        "learn.local_steps=12",
        "learn.method=sflam-mixed",
        *HEAD,
        "learn.batch=8",
    )
    result = sflam.train(job, tmp_path / "run")
    assert result.accuracy > 0.95 and result.perplexity is not None and result.perplexity < 2
    good, bad = sflam.generate(tmp_path / "run", ["the plot was good", "a film and bad"], new_tokens=6)
    assert (good.text, good.ended, bad.text, bad.tokens) == ("a good film", True, "very bad plot", 4)
    drawn = [
        sflam.generate(tmp_path / "run", ["the plot was good"], new_tokens=6, temperature=3.0, seed=seed)[
            0
        ].text
        for seed in (0, 0, 1, 2)
    ]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    output = cli("predict", tmp_path / "run", "--generate", "--prompt", "the plot was good", "--json")
    assert output.code == 0 and json.loads(output.out[-1])["generated"][0]["text"] == "a good film"
    assert_refused(cli("predict", tmp_path / "run", "--generate"), "no prompt")
    assert_refused(cli("predict", tmp_path / "run", "--prompt", "a"), "--generate")
    long = ("predict", tmp_path / "run", "--generate", "--prompt", "a " * 40)
    assert_refused(cli(*long), "40 tokens, and 1 more are beyond the 32")


def test_a_classifier_generates_nothing(finished: Path, cli: Cli) -> None:
    assert_refused(cli("predict", finished, "--generate", "--prompt", "a"), "trained a classifier")


def test_rows_are_cut_and_prompts_without_room_left_out(shelf: Path, tmp_path: Path) -> None:
    run = sflam.start(job_of(shelf, "data.max_tokens=5"), tmp_path / "run")
    train, test = run.assembly.splits.train, run.assembly.splits.test
    assert len(train) + len(test) < 60
    assert any("prompts too long for any of their answer" in note for note in run.assembly.notes)
    for part in (train, test):
        assert part.prompts is not None and part.lengths is not None
        assert (part.prompts < part.lengths).all() and part.lengths.max() == 5


def test_tokens_of_a_prompt_and_its_answer() -> None:
    side = preprocessor(longest=0)
    with pytest.raises(DataError, match="without torch learns whole texts"):
        answered(["a"], ["b"], str, side, 0, [])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("data.label=label",), "data.label"),
        (("data.answer=rply",), "data.answer is 'rply'"),
        (("data.answer=ask",), "data.answer is 'ask'"),
        (("device.runtime=lean",), "without torch learns whole texts"),
    ],
)
def test_what_does_not_go_together(
    shelf: Path, tmp_path: Path, settings: tuple[str, ...], reason: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=reason):
        sflam.start(job_of(shelf, *settings), tmp_path / "run")


def test_a_server_refuses_rows_with_nothing_to_learn(shelf: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from sflam.serve.contracts import contracts_of

    assert contract.GIVEN == IGNORED
    run = sflam.start(job_of(shelf), tmp_path / "run")
    halves = run.assembly.halves
    assert halves is not None
    batch = halves.examples.take(np.arange(4))
    hidden = halves.devices.forward({0: batch}, {0: 1})[0]
    message = halves.exchange.step_message(Position(0, 0, 0), hidden, batch)
    agreed = contracts_of(run.assembly, halves)[0]
    tokens = message.activations.tokens
    agreed.check(message, 0, 0, 0, 4, tokens)
    labels = message.labels
    assert labels is not None and (labels == contract.GIVEN).any()
    with pytest.raises(WireError, match="labels from -100"):
        replace(agreed, answers=False).check(message, 0, 0, 0, 4, tokens)
    none = labels.copy()
    none[: int(batch.lengths[0]) if batch.lengths is not None else tokens // 4] = contract.GIVEN
    with pytest.raises(WireError, match="no label of a token to learn"):
        agreed.check(replace(message, labels=none), 0, 0, 0, 4, tokens)
