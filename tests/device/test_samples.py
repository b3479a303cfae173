"""A device's samples without torch are those of the torch device: the same rows, pixels and ids, from any source."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sflam import config
from sflam.data.mapped import mapped_arrays
from sflam.data.sources import digits
from sflam.device.samples import samples_of
from sflam.errors import DataError
from sflam.model.families import CAUSAL, IMAGE, SEQUENCE
from sflam.run.assemble import examples_of
from sflam.run.job_model import open_model
from sflam.serve.join import samples as torch_samples
from tests.reviews import write_reviews

CLASSES = {IMAGE: [str(digit) for digit in range(10)], SEQUENCE: ["negative", "positive"], CAUSAL: []}


@pytest.fixture(scope="module")
def models(tmp_path_factory, room):
    """Task -> folder of a tiny model."""
    folder = tmp_path_factory.mktemp("models")
    write_reviews(folder)
    return {IMAGE: room / "vit", SEQUENCE: folder / "bert", CAUSAL: folder / "gpt2-lm"}, folder


def job_of(model, *settings):
    return config.load(None, (f"model.name={model}", "fleet.devices=3", "data.partition=iid", *settings))


def both(job, data, task, model, cache, **columns):
    """Return a device's samples, the torch device's as a model reads them, and what each is to train on."""
    notes = ([], [])
    share = {"share": data is None}
    ours = samples_of(
        job, data, 1, CLASSES[task], task, model, cache, notify=notes[0].append, **share, **columns
    )
    column, label = columns.get("column", ""), columns.get("label", "")
    dataset, own = torch_samples(job, data, 1, CLASSES[task], column, label, notes[1].append, **share)
    backbone = open_model(str(model), task=task, classes=len(CLASSES[task]))
    return ours, examples_of(dataset, backbone, str(model)), own, notes


def assert_equal(ours, examples, own):
    assert len(ours.own) == len(own) > 0
    for start in range(0, len(own), 7):
        mine, theirs = ours.own[start : start + 7], np.asarray(own)[start : start + 7]
        batch = examples.take(theirs)
        if ours.spec:
            assert np.array_equal(ours.pixels(mine), batch.inputs["pixel_values"].numpy())
        else:
            for row, index in enumerate(mine.tolist()):
                tokens = ours.tokens(index)[0]
                assert np.array_equal(tokens, batch.inputs["input_ids"][row, : len(tokens)].numpy())
            width = batch.inputs["input_ids"].shape[1]
            lengths = np.full(len(batch), width) if batch.lengths is None else batch.lengths.numpy()
            assert np.array_equal(ours.counts(mine, 0), lengths)
        labels = batch.labels.numpy()
        assert np.array_equal(ours.labels(mine), labels[labels >= 0])


def test_the_bundled_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    bunch, ours = load_digits(), digits()
    assert np.array_equal(ours.inputs[..., 0], np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    assert np.array_equal(ours.labels, bunch.target)


@pytest.mark.parametrize("data", [None, "digits"])
def test_digits(models, tmp_path, data):
    folders, _ = models
    job = job_of(folders[IMAGE], "data.noise=0.1", "data.flipped=0.2", "data.validation=0.1")
    ours, examples, own, notes = both(job, data, IMAGE, folders[IMAGE], tmp_path)
    assert_equal(ours, examples, own)
    assert notes[0] == notes[1]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_in_an_npz(models, tmp_path, save, kind):
    folders, _ = models
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 9, 7, 3)).astype(np.uint8)
    save(
        tmp_path / "x.npz",
        image=images if kind is np.uint8 else images / np.float32(255),
        label=np.arange(40) % 4,
    )
    job, data = job_of(folders[IMAGE]), str(tmp_path / "x.npz")
    ours, examples, own, _ = both(job, data, IMAGE, folders[IMAGE], tmp_path / "cache")
    assert_equal(ours, examples, own)
    assert isinstance(ours.dataset.inputs, np.memmap)
    ready = save is np.savez and kind is np.uint8
    assert (tmp_path / "cache").exists() != ready


@pytest.mark.parametrize("task", [SEQUENCE, CAUSAL])
def test_token_ids_in_an_npz(models, tmp_path, task):
    folders, _ = models
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, 30)
    arrays = {"input_ids": rng.integers(1, 15, (30, 11)), "lengths": lengths}
    if task == SEQUENCE:
        arrays["label"] = np.array(["negative", "positive"])[np.arange(30) % 2]
    np.savez(tmp_path / "x.npz", **arrays)
    job = job_of(folders[task], *(("data.label=",) if task == CAUSAL else ()))
    ours, examples, own, _ = both(job, str(tmp_path / "x.npz"), task, folders[task], tmp_path / "cache")
    assert_equal(ours, examples, own)
    assert isinstance(ours.dataset.inputs, np.memmap)


@pytest.mark.parametrize("task", [SEQUENCE, CAUSAL])
def test_texts_in_a_table(models, tmp_path, task):
    folders, folder = models
    data = folder / "reviews.csv"
    if task == CAUSAL:
        data = tmp_path / "texts.csv"
        texts = [line.split(",")[0] for line in (folder / "reviews.csv").read_text().splitlines()]
        data.write_text("\n".join(['"' + text + '"' for text in [*texts, "good", " "]]) + "\n")
    job = job_of(folders[task], "data.max_tokens=6", *(("data.label=",) if task == CAUSAL else ()))
    ours, examples, own, notes = both(
        job, str(data), task, folders[task], tmp_path / "cache", column="sentence"
    )
    assert_equal(ours, examples, own)
    assert notes[0][:-1] == notes[1] and "in a process of its own" in notes[0][-1]
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    again = []
    samples_of(job, str(data), 1, CLASSES[task], task, folders[task], tmp_path / "cache", column="sentence",
               notify=again.append)  # fmt: skip
    assert again == [] and kept == sorted(path.name for path in (tmp_path / "cache").iterdir())


def test_json_lines_are_read_as_csv_is(models, tmp_path):
    folders, folder = models
    rows = [line.split(",") for line in (folder / "reviews.csv").read_text().splitlines()[1:]]
    lines = [json.dumps({"sentence": text, "label": label}) for text, label in rows]
    (tmp_path / "reviews.jsonl").write_text("\n".join(lines) + "\n")
    job = job_of(folders[SEQUENCE])
    ours, examples, own, _ = both(
        job, str(tmp_path / "reviews.jsonl"), SEQUENCE, folders[SEQUENCE], tmp_path / "cache"
    )
    assert_equal(ours, examples, own)


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_a_folder_of_images(models, tmp_path, parts):
    """Of several sizes and colours, some larger and some smaller than the model's."""
    folders, _ = models
    rng = np.random.default_rng(0)
    for part in parts:
        for number in range(24):
            place = tmp_path / "pictures" / part / str(number % 3)
            place.mkdir(parents=True, exist_ok=True)
            shape = (5 + number, 40 - number, 3) if number % 2 else (12, 12)
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    job = job_of(folders[IMAGE])
    ours, examples, own, _ = both(job, str(tmp_path / "pictures"), IMAGE, folders[IMAGE], tmp_path / "cache")
    assert_equal(ours, examples, own)


def test_a_changed_file_is_prepared_again(models, tmp_path):
    folders, folder = models
    data = tmp_path / "reviews.csv"
    data.write_text((folder / "reviews.csv").read_text())
    job = job_of(folders[SEQUENCE])
    for rows in (60, 62):
        found = samples_of(
            job, str(data), 0, CLASSES[SEQUENCE], SEQUENCE, folders[SEQUENCE], tmp_path / "cache"
        )
        assert len(found.dataset) == rows
        data.write_text(data.read_text() + "good film plot,positive\n" * 2)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.csv", None, "no such file"),
        ("empty.csv", "text,label\n", "holds no samples"),
        ("ragged.csv", "text,label\ngood,positive,3\n", "3 cells"),
        ("blank.csv", "text,label\n ,positive\nbad,negative\n", "empty text"),
        ("strange.csv", "text,label\n" + "good,lovely\nbad,negative\n" * 4, "class 'lovely'"),
        ("one.csv", "text,label\ngood,positive\nbad,positive\n", "at least two classes"),
        ("x.parquet", "PAR1", "convert it"),
        ("x.jsonl", "[1]\n", "no object"),
        ("x.npz", "nonsense", "not an .npz"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(models, tmp_path, name, content, reason):
    folders, _ = models
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason) as found:
        samples_of(job_of(folders[SEQUENCE]), str(tmp_path / name), 0, CLASSES[SEQUENCE], SEQUENCE, folders[SEQUENCE],
                   tmp_path / "cache")  # fmt: skip
    assert "\n" not in str(found.value)


def test_a_model_without_a_tokenizer_asks_for_token_ids(models, tmp_path):
    _, folder = models
    with pytest.raises(DataError, match=r"token ids in an \.npz"):
        samples_of(job_of(folder / "bare/bert"), str(folder / "reviews.csv"), 0, CLASSES[SEQUENCE], SEQUENCE,
                   folder / "bare/bert", tmp_path / "cache")  # fmt: skip


def test_token_ids_beyond_the_vocabulary_are_refused(models, tmp_path):
    folders, _ = models
    np.savez(tmp_path / "x.npz", input_ids=np.full((8, 4), 50), label=np.arange(8) % 2)
    job = replace(job_of(folders[SEQUENCE]))
    with pytest.raises(DataError, match="vocabulary of the job's model ends at 49"):
        samples_of(job, str(tmp_path / "x.npz"), 0, ["0", "1"], SEQUENCE, folders[SEQUENCE], tmp_path)


def test_a_mapped_file_is_what_numpy_reads(tmp_path):
    arrays = {
        "a": np.arange(6).reshape(2, 3),
        "f": np.asfortranarray(np.eye(3)),
        "s": np.array(3),
        "e": np.empty((0, 2)),
        "n": np.array(["x", "yy"]),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    found = mapped_arrays(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    assert all(
        np.array_equal(found[name], arrays[name]) and found[name].dtype == arrays[name].dtype
        for name in arrays
    )
    np.savez_compressed(tmp_path / "y.npz", **arrays)
    assert mapped_arrays(tmp_path / "y.npz") is None
    np.savez(tmp_path / "z.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="objects"):
        mapped_arrays(tmp_path / "z.npz")
