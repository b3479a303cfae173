"""A saved run predicts as it did at its end: on its own data, on files, by name of class."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sflam
from sflam import config
from sflam.data.sources import digits
from sflam.errors import DataError
from tests.conftest import Cli, Edit, assert_refused, cut_short, files, written


def result_of(run: Path) -> dict[str, float]:
    """Return what a run reports of itself."""
    values: dict[str, float] = json.loads((run / "result.json").read_text())
    return values


def test_the_run_s_own_data_are_what_it_held_out(finished: Path) -> None:
    """Not the whole file, whose training part the model has seen."""
    found, expected = sflam.predict(finished), result_of(finished)
    assert len(found.predicted) == 11 < 60
    assert (found.accuracy, found.loss) == (expected["accuracy"], pytest.approx(expected["loss"], rel=1e-6))
    assert any("held-out" in note for note in found.notes)


def test_named_data_are_their_held_out_part(tmp_path: Path, small: tuple[str, ...]) -> None:
    job = config.load(None, [*small, "data.name=digits", "learn.rounds=1"])
    result = sflam.train(job, tmp_path / "run")
    own, named = sflam.predict(tmp_path / "run"), sflam.predict(tmp_path / "run", "digits")
    assert own.metrics() == named.metrics() and own.accuracy == result.accuracy
    assert len(own.predicted) == 359
    weighted = sum(share * (named.labels == int(name)).sum() for name, share in named.per_class.items())
    assert weighted / 359 == pytest.approx(result.accuracy)


@pytest.fixture(scope="module")
def animals(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned to separate dark cats from bright dogs and grey emus well."""
    folder = tmp_path_factory.mktemp("animals")
    np.savez(folder / "train.npz", image=shaded(label := np.arange(90) % 3), label=NAMES[label])
    settings = (
        f"data.name={folder}/train.npz",
        "data.partition=iid",
        "learn.rounds=4",
        "learn.local_steps=10",
    )
    result = sflam.train(config.load(None, [*small, *settings, "learn.lr=0.01"]), folder / "run")
    assert result.classes == ("cat", "dog", "emu") and result.accuracy > 0.9
    return folder / "run"


NAMES = np.array(["cat", "dog", "emu"])


def shaded(label: np.ndarray) -> np.ndarray:
    """Return an image per label: one brightness per class, and a little noise."""
    noise = np.random.default_rng(0).integers(0, 20, (len(label), 8, 8))
    return (np.array([0, 230, 110])[label][:, None, None] + noise).astype(np.uint8)


def test_classes_are_reported_apart_by_name(animals: Path, tmp_path: Path) -> None:
    label = np.array([1, 2, 1, 2, 2])  # without cats, dogs are number 0 of this file
    np.savez(tmp_path / "new.npz", image=shaded(label), label=NAMES[label])
    found = sflam.predict(animals, tmp_path / "new.npz")
    assert found.classes == ("cat", "dog", "emu") and found.labels is not None
    assert found.labels.tolist() == label.tolist() == found.predicted.tolist()
    assert found.per_class == {"dog": 1.0, "emu": 1.0} and found.accuracy == 1.0


def test_other_columns_and_no_labels(animals: Path, tmp_path: Path) -> None:
    label = np.array([0, 1, 2])
    np.savez(tmp_path / "new.npz", shots=shaded(label), kind=NAMES[label])
    found = sflam.predict(animals, tmp_path / "new.npz", column="shots", label="kind")
    assert found.accuracy == 1.0
    found = sflam.predict(animals, tmp_path / "new.npz", column="shots")
    assert (found.accuracy, found.loss, found.labels, found.per_class) == (None, None, None, {})
    assert found.predicted.tolist() == [0, 1, 2] and "predictions only, no accuracy" in found.notes[-1]


def test_numbers_are_not_the_names_of_classes(animals: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", image=shaded(np.arange(3)), label=np.arange(3))
    with pytest.raises(DataError, match='the class "0", which the run does not know; it knows cat, dog, emu'):
        sflam.predict(animals, tmp_path / "new.npz")


def test_a_line_per_sample(animals: Path, tmp_path: Path) -> None:
    label = np.array([2, 0, 1])
    np.savez(tmp_path / "new.npz", image=shaded(label), label=NAMES[label])
    found = sflam.predict(animals, tmp_path / "new.npz")
    found.write_csv(tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert [row["predicted"] for row in rows] == [row["label"] for row in rows] == ["emu", "cat", "dog"]
    assert [float(row["probability"]) for row in rows] == pytest.approx(found.probability.tolist(), abs=1e-6)
    assert all(1 / 3 < value <= 1 for value in found.probability)


def test_the_command_line(cli: Cli, animals: Path, tmp_path: Path) -> None:
    label = np.array([2, 0, 1])
    np.savez(tmp_path / "new.npz", image=shaded(label))
    output = cli("predict", animals, "--data", tmp_path / "new.npz", "--json", "--out", tmp_path / "out.csv")
    assert output.code == 0 and len(output.out) == 1
    expected = {"data": "new", "samples": 3, "classes": ["cat", "dog", "emu"], "per_class": {}, "plot": None}
    expected |= {"devices": [], "devices_out": None}
    unknown = "accuracy loss balanced_accuracy macro_f1 calibration_error brier confusion".split()
    expected |= dict.fromkeys(unknown) | {"out": str(tmp_path / "out.csv")}
    assert json.loads(output.out[0]) == expected
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "index,predicted,probability"
    output = cli("predict", animals)
    assert output.code == 0 and any("accuracy 100.00%" in line for line in output.out)


def test_more_samples_than_one_pass_takes(finished: Path, tmp_path: Path) -> None:
    whole = digits()
    np.savez(tmp_path / "all.npz", image=whole.inputs, label=whole.labels)
    np.savez(tmp_path / "last.npz", image=whole.inputs[-5:], label=whole.labels[-5:])
    found, last = (sflam.predict(finished, tmp_path / name) for name in ("all.npz", "last.npz"))
    assert len(found.predicted) == 1797
    assert found.probability[-5:] == pytest.approx(last.probability, abs=1e-6)


PREDICT: dict[str, tuple[Edit, list[str], str]] = {
    "unfinished": (
        lambda run: (run / "result.json").unlink(),
        [],
        "no finished run .*finish it with .*--resume",
    ),
    "half a result": (cut_short("result.json", 0.5), [], "no finished run .*finish it with .*--resume"),
    "another result": (written("result.json", "[]"), [], "no finished run .*finish it with .*--resume"),
    "empty result": (written("result.json", "{}"), [], "no finished run .*finish it with .*--resume"),
    "no adapter": (
        lambda run: (run / "adapter" / "adapter_model.safetensors").unlink(),
        [],
        "adapter .* cannot be loaded .*is missing.*--resume .* writes it again",
    ),
    "half an adapter": (
        cut_short("adapter/adapter_model.safetensors", 0.5),
        [],
        "adapter .* cannot be loaded .*--resume .* writes it again",
    ),
    "half a description": (
        cut_short("adapter/adapter_config.json", 0.5),
        [],
        "adapter .* cannot be loaded .*--resume .* writes it again",
    ),
    "no such data": (lambda _: None, ["--data", "digit"], "unknown dataset 'digit', did you mean 'digits'"),
    "no such file": (lambda _: None, ["--data", "no.npz"], "no.npz: no such file"),
    "texts": (
        lambda _: None,
        ["--data", "texts.npz"],
        "data 'texts' is for seq.*can only do image.*other data",
    ),
    "another class": (
        lambda _: None,
        ["--data", "cats.npz"],
        'has the class "cat", which the run does not know.*0, 1',
    ),
    "no such column": (
        lambda _: None,
        ["--data", "cats.npz", "--input", "imag"],
        "column 'imag', did you mean.*set --input and --label",
    ),
    "column of nothing": (
        lambda _: None,
        ["--input", "image"],
        "--input and --label .* with --data; give that",
    ),
    "no run": (shutil.rmtree, [], r"holds no run \(no config.toml\); give the folder a run was written to"),
}


@pytest.mark.parametrize(
    ("edit", "options", "sentence"), [pytest.param(*case, id=name) for name, case in PREDICT.items()]
)
def test_what_cannot_be_predicted(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(run.parent)
    np.savez("texts.npz", input_ids=np.ones((6, 6), np.int64))
    np.savez("cats.npz", image=np.zeros((4, 8, 8), np.uint8), label=np.array(["cat", "1", "cat", "2"]))
    edit(run)
    before = files(run.parent)
    assert_refused(cli("predict", run, *options, "--out", "out.csv"), sentence)
    assert files(run.parent) == before


@pytest.mark.parametrize("out", ["no/out.csv", "."], ids=["no folder", "a folder"])
def test_predictions_that_cannot_be_written(cli: Cli, run: Path, tmp_path: Path, out: str) -> None:
    assert_refused(cli("predict", run, "--out", tmp_path / out), "cannot be written .*choose another --out")


def test_what_was_taken_for_what_and_with_which_confidence(finished: Path, tmp_path: Path) -> None:
    """As scikit-learn counts, and bins by hand."""
    from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score

    found = sflam.predict(finished)
    labels = found.labels
    assert labels is not None and found.probabilities.shape == (11, len(found.classes))
    assert found.probabilities.sum(1) == pytest.approx(1)
    every = range(len(found.classes))
    assert found.confusion.tolist() == confusion_matrix(labels, found.predicted, labels=every).tolist()
    numbers = found.metrics()
    assert numbers["macro_f1"] == pytest.approx(f1_score(labels, found.predicted, average="macro"))
    truth = np.eye(len(found.classes))[labels]
    rows = [brier_score_loss(truth[:, c], found.probabilities[:, c]) for c in every]
    assert found.brier == pytest.approx(sum(rows))
    gap = 0.0
    for low in np.arange(10) / 10:
        own = (found.probability > low) & (found.probability <= low + 0.1)
        gap += abs(found.probability[own].sum() - (found.predicted == labels)[own].sum()) / 11
    assert found.calibration_error == pytest.approx(gap)
    assert sum(each.count for each in found.calibration) == 11
    found.write_csv(tmp_path / "all.csv", every_class=True)
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert float(rows[3][f"p({found.classes[1]})"]) == pytest.approx(found.probabilities[3, 1], abs=1e-6)


def test_a_picture_needs_labels(finished: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("predict", finished, "--plot", tmp_path / "right.png")
    assert done.code == 0 and (tmp_path / "right.png").is_file()
    np.savez(tmp_path / "bare.npz", image=digits().inputs[:4])
    assert_refused(cli("predict", finished, "--data", tmp_path / "bare.npz", "--plot", "x.png"), "no labels")
    assert_refused(cli("predict", finished, "--probabilities"), "--out")
