"""Runs on raw texts and images: the model's own tokenizer and size, from a table or a folder to a prediction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sflam
from sflam import config
from sflam.errors import DataError
from sflam.run.assemble import preprocessor_of
from tests.conftest import SHORT, Cli, assert_refused, sets
from tests.reviews import write_reviews


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with a tokenizer of fifteen words each, and reviews in a CSV file."""
    folder = tmp_path_factory.mktemp("shelf")
    write_reviews(folder)
    return folder


def job_of(shelf: Path, model: str, *settings: str) -> config.Job:
    return config.load(
        None, [*SHORT, f"model.name={shelf / model}", f"data.name={shelf / 'reviews.csv'}", *settings]
    )


def test_the_models_own_tokenizer_with_its_marks(shelf: Path) -> None:
    preprocessor = preprocessor_of(job_of(shelf, "bert"))
    assert preprocessor.encode(["the good film", "good"], 0) == [[2, 10, 5, 7, 3], [2, 5, 3]]
    assert preprocessor.encode(["the good film"], 4) == [[2, 10, 5, 3]]
    assert preprocessor.longest() == 32


def test_texts_are_learnt_and_predicted(shelf: Path, tmp_path: Path) -> None:
    job = job_of(
        shelf, "bert", "learn.rounds=6", "learn.local_steps=6", "learn.lr=0.01", "data.partition=iid"
    )
    result = sflam.train(job, tmp_path / "run", merge=True)
    assert result.classes == ("negative", "positive") and result.accuracy > 0.9
    assert result.perplexity is None
    found = sflam.predict(tmp_path / "run", shelf / "reviews.csv")
    assert len(found.predicted) == 60 and found.accuracy is not None and found.accuracy > 0.9
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": "a very bad plot"}) + "\n")
    found = sflam.predict(tmp_path / "run", tmp_path / "new.jsonl")
    assert found.classes[found.predicted[0]] == "negative" and found.accuracy is None


def test_images_of_a_folder_are_learnt(room: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for index in range(40):
        path = tmp_path / "shades" / ("dark", "light")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = draw.integers(0, 50, (8 + index % 3, 9))
        Image.fromarray((noise + 200 * (index % 2)).astype(np.uint8)).save(path)
    settings = [*SHORT, f"model.name={room / 'vit'}", f"data.name={tmp_path / 'shades'}"]
    run = sflam.start(config.load(None, [*settings, "learn.lr=0.01"]), tmp_path / "run")
    assert any("resized to the model's 16 x 16" in note for note in run.assembly.notes)
    for _ in run.rounds():
        pass
    assert run.finish().classes == ("dark", "light")
    (tmp_path / "shades" / "dark" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png: not an image"):
        sflam.predict(tmp_path / "run", tmp_path / "shades")


def test_a_model_without_a_tokenizer(shelf: Path, cli: Cli, tmp_path: Path) -> None:
    for model in ("bare/bert", "bare/gpt2-lm"):  # the one fails to load, the other would know no word
        settings = [*SHORT, f"model.name={shelf / model}", f"data.name={shelf / 'reviews.csv'}"]
        output = cli("train", *sets(*settings), "--out", tmp_path / "run")
        assert_refused(
            output, f"model '.*{model}' has no tokenizer.*put the tokenizer's files into its folder"
        )


def test_texts_and_images_for_the_other_kind_of_model(shelf: Path, room: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the data holds texts, but model .*vit' \(vit\) reads images"):
        sflam.start(job_of(room, "vit", f"data.name={shelf / 'reviews.csv'}"), tmp_path / "run")
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "images" / name / "0.png")
    with pytest.raises(DataError, match=r"the data holds images, but model .*bert' \(bert\) reads texts"):
        sflam.start(job_of(shelf, "bert", f"data.name={tmp_path / 'images'}"), tmp_path / "run")


def test_fewer_tokens_than_the_marks_take(shelf: Path, tmp_path: Path) -> None:
    job = job_of(shelf, "bert", "data.max_tokens=2")
    run = sflam.start(job, tmp_path / "run")
    assert run.assembly.splits.train.inputs.shape[1] == 2
    assert any("60 of 60 texts were cut to 2 tokens" in note for note in run.assembly.notes)


def test_texts_alone_train_a_language_model(shelf: Path, cli: Cli, tmp_path: Path) -> None:
    settings = [
        *SHORT,
        f"model.name={shelf / 'gpt2-lm'}",
        f"data.name={shelf / 'reviews.csv'}",
        "data.label=",
        "data.buckets=true",
        "learn.lr=0.01",
        "learn.local_steps=4",
    ]
    output = cli("train", *sets(*settings), "--out", tmp_path / "run", "--merge", "--json")
    assert output.code == 0, output.err
    result = json.loads(output.out[-1])
    assert result["classes"] == [] and result["perplexity"] == pytest.approx(np.exp(result["loss"]))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["perplexity"] == result["perplexity"]
    assert 1 < result["perplexity"] < 60 and 0 <= result["accuracy"] <= 1
    assert any(f"perplexity {result['perplexity']:.4g} after 2 rounds" in line for line in output.err)
    assert (
        "note: without labels, data.partition = dirichlet shares texts out by length, in 10 groups"
        in output.err
    )
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "GPT2LMHeadModel.from_pretrained('path/to/gpt2-lm')" in card and "num_labels" not in card
    assert card.startswith('---\nbase_model: "gpt2-lm"\n') and str(shelf) not in card
    assert "| Input column | sentence |" in card and "| Data | reviews, " in card
    assert (tmp_path / "run" / "model" / "tokenizer.json").is_file()
    assert_refused(
        cli("predict", tmp_path / "run"), "trained a language model, which predicts tokens, not labels"
    )


def test_the_perplexity_is_that_of_plain_transformers(shelf: Path, tmp_path: Path) -> None:
    import transformers

    run = sflam.start(job_of(shelf, "gpt2-lm", "data.label=", "learn.rounds=1"), tmp_path / "run")
    for _ in run.rounds():
        pass
    result = run.finish(merge=True)
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "run" / "model").eval()
    total = count = 0.0
    test = run.assembly.splits.test
    assert test.lengths is not None
    for row, length in zip(test.inputs, test.lengths, strict=True):  # one by one: no padding to get wrong
        ids = torch.from_numpy(row[:length])[None]
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (length - 1)
        count += length - 1
    assert result.perplexity == pytest.approx(np.exp(total / count), rel=1e-4)


def test_texts_alone_need_a_language_model(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"read without labels .* but model .*bert' \(bert\) can only do sequence"
    ):
        sflam.start(job_of(shelf, "bert", "data.label="), tmp_path / "run")


def test_texts_of_a_single_token_teach_nothing(shelf: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.csv"
    settings = ("data.label=", f"data.name={short}")
    short.write_text("text\n" + "good\n" * 20)
    with pytest.raises(DataError, match=r"short\.csv: holds no text of two tokens or more"):
        sflam.start(job_of(shelf, "gpt2-lm", *settings), tmp_path / "run")
    short.write_text("text\n" + "good\na good film\n" * 20)
    run = sflam.start(job_of(shelf, "gpt2-lm", *settings), tmp_path / "run")
    assert len(run.assembly.splits.train) == 16
    assert "20 texts of short are a single token and were left out" in run.assembly.notes
    np.savez(tmp_path / "ids.npz", input_ids=np.ones((20, 4), np.int64), lengths=np.arange(20) % 4 + 1)
    with pytest.raises(DataError, match=r"rows of data 'ids' hold a single token, .*remove such rows"):
        sflam.start(
            job_of(shelf, "gpt2-lm", "data.label=", f"data.name={tmp_path / 'ids.npz'}"), tmp_path / "other"
        )


@pytest.mark.parametrize("method", ["sflam", "central"])
def test_buckets_reach_the_steps(shelf: Path, tmp_path: Path, method: str) -> None:
    settings = ("data.partition=iid", f"learn.method={method}", "learn.rounds=1", "learn.local_steps=0")
    runs = [
        sflam.train(job_of(shelf, "bert", *settings, f"data.buckets={on}"), tmp_path / f"{on}")
        for on in ("true", "false")
    ]
    assert runs[0].samples == runs[1].samples == 48 and runs[0].loss != runs[1].loss
