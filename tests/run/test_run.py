"""A run leaves what its folder promises: plain files that plain libraries read, and numbers that add up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from torch import Tensor

import sflam
from sflam import config, sizes
from sflam.codec.quantizers import QUANTIZERS
from sflam.codec.torch_quantizers import TORCH_QUANTIZERS, TorchQuantizer
from sflam.codec.uniform import Uniform
from sflam.data.images import ImageSpec, to_pixels
from sflam.data.sources import load as load_data
from sflam.errors import QuantizerError
from sflam.model.backbone import quiet
from sflam.records import history
from sflam.registry import OWN
from tests.conftest import SHORT, Save
from tests.tiny import tiny

DIGITS = (*SHORT, "learn.batch=16", "data.partition=iid", "learn.canonical=true", "quant.bits_down=4")
"""The bundled model and data, three devices with full batches only."""


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory, unrendered: Save) -> tuple[sflam.Job, sflam.Result]:
    """A finished, merged run on the digits, its charts rendered."""
    job = config.load(None, DIGITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sflam.report.charts.figure.save", unrendered)
        return job, sflam.train(job, tmp_path_factory.mktemp("digits") / "run", merge=True)


def accuracy(model: Any, job: sflam.Job, folder: Path) -> float:
    """Score a plain model on the held-out digits, fed as ``folder`` says, with nothing of sflam's training code."""
    test = load_data(job.data, job.seed).test
    pixels = torch.from_numpy(to_pixels(test.inputs, ImageSpec.from_folder(folder, model.config.to_dict())))
    with torch.no_grad():
        found: Tensor = model.eval()(pixel_values=pixels).logits.argmax(-1)
    return float((found.numpy() == test.labels).mean())


def test_the_folder_holds_what_it_promises(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    _, result = digits_run
    run = Path(result.run_dir)
    assert {path.name for path in run.iterdir()} == {
        *(
            "config.toml",
            "history.jsonl",
            "events",
            "curves.png",
            "partition.json",
            "partition.png",
            "checkpoints",
            "adapter",
            "model",
            "result.json",
        )
    }
    assert {path.name for path in (run / "adapter").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md")
    }
    assert {path.name for path in (run / "model").iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json")
    }
    for picture in run.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and picture.stat().st_size > 5_000
    assert json.loads((run / "result.json").read_text())["accuracy"] == result.accuracy
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def test_the_configuration_reloads_to_the_same_job(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    job, result = digits_run
    assert config.load(Path(result.run_dir) / "config.toml") == job


def test_the_history_tells_each_round_once(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    job, result = digits_run
    header, rounds = history.read(Path(result.run_dir) / "history.jsonl")
    assert config.changes(job, header["config"]) == {} and header["seed"] == job.seed
    assert header["versions"]["torch"] == torch.__version__.partition("+")[0] or header["versions"]["torch"]
    assert [item.round for item in rounds] == [0, 1]
    assert (rounds[-1].accuracy, rounds[-1].test_loss) == (result.accuracy, result.loss)
    assert [item.participants for item in rounds] == [(0, 1, 2)] * 2


def test_plain_peft_loads_the_adapter(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    job, result = digits_run
    folder = sflam.model_folder("nano-vit")
    with quiet():
        base = transformers.ViTForImageClassification.from_pretrained(folder, num_labels=10)
    model = PeftModel.from_pretrained(base, Path(result.run_dir) / "adapter")
    assert accuracy(model, job, Path(folder)) == result.accuracy > 0.2


def test_plain_transformers_loads_the_merged_model(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    job, result = digits_run
    folder = Path(result.run_dir) / "model"
    model, report = transformers.ViTForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert accuracy(model, job, folder) == result.accuracy
    # and it is a model like any other, to be fine-tuned further
    again = config.load(None, [*DIGITS, f"model.name={folder}", "learn.rounds=1", "learn.lr=1e-9"])
    assert sflam.start(again, folder.parent.parent / "again").assembly.backbone.fresh == ()


def test_the_exact_aggregation_leaves_a_model_of_its_own(tmp_path: Path) -> None:
    job = config.load(None, [*DIGITS, "learn.aggregation=residual"])
    result = sflam.train(job, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()  # the corrected base is no other run's
    with quiet():
        model = transformers.ViTForImageClassification.from_pretrained(tmp_path / "run" / "model")
    assert accuracy(model, job, tmp_path / "run" / "model") == result.accuracy > 0.2
    assert sflam.predict(tmp_path / "run").accuracy == result.accuracy


def test_the_card_says_how_to_load_it(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    _, result = digits_run
    run = Path(result.run_dir)
    text = (run / "adapter" / "README.md").read_text()
    assert text.startswith('---\nbase_model: "nano-vit"\nlibrary_name: peft\n')
    for row in (
        "| Data | digits, 3 devices (iid) |",
        "| Bits at the cut | 8 up, 4 down (uniform) |",
        "| Rounds | 2 |",
    ):
        assert row in text
    assert f"| Test accuracy | {100 * result.accuracy:.1f} % |" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    loaded: dict[str, Any] = {}
    with quiet():
        exec(code.replace("path/to/this/folder", str(run / "adapter")), loaded)
    assert isinstance(loaded["model"], PeftModel)


def logged(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Read the run's events with TensorBoard's own format, and none of its code."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "events").iterdir()):
        raw = path.read_bytes()
        while raw:
            length = int.from_bytes(raw[:8], "little")
            event = Event.FromString(raw[12 : 12 + length])
            raw = raw[16 + length :]
            yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)


def test_the_events_hold_every_round(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    _, result = digits_run
    run = Path(result.run_dir)
    _, rounds = history.read(run / "history.jsonl")
    found = {(step, tag): value for step, tag, value in logged(run)}
    assert len(found) == len(list(logged(run))), "nothing is logged twice"
    for item in rounds:
        assert found[item.round, "accuracy/test"] == pytest.approx(item.accuracy)
        assert found[item.round, "bytes/activations_up"] == item.bytes_up


def test_a_resumed_run_logs_again_what_its_killed_process_may_not_have(
    tmp_path: Path, small: tuple[str, ...]
) -> None:
    killed = sflam.start(config.load(None, small), tmp_path / "run")
    next(killed.rounds())
    for path in (tmp_path / "run" / "events").iterdir():
        path.unlink()
    resumed = sflam.resume(tmp_path / "run")
    list(resumed.rounds())
    assert {step for step, *_ in logged(tmp_path / "run")} == {0, 1}


def test_bytes_and_parameters_are_those_of_the_arithmetic(digits_run: tuple[sflam.Job, sflam.Result]) -> None:
    _, result = digits_run
    rounds, devices, steps = 2, 3, 2
    rows, tokens, dim = 16, 17, 96  # a batch of 16 x 16 pixels in patches of 4 x 4, and the class token
    exchanges = rounds * devices * steps
    up = (
        sizes.HEADER_BYTES + rows * tokens * dim * 8 // 8 + rows * tokens * 4 + rows * 4
    )  # header, codes, offset and step, labels
    down = sizes.HEADER_BYTES + rows * tokens * dim * 4 // 8 + rows * tokens * 4
    assert up == sizes.step_body_bytes(rows * tokens, dim, 8, rows=rows, labels=rows)
    assert down == sizes.token_body_bytes(rows * tokens, dim, 4)
    # rank 8 on q, k, v, o (96 to 96) and on the two layers of the MLP (96 to 192 and back)
    block = 8 * (4 * (96 + 96) + (96 + 192) + (192 + 96))
    adapters = rounds * devices * (sizes.HEADER_BYTES + 4 * block)
    assert adapters == rounds * devices * sizes.adapter_body_bytes(block)
    # up their change, 8 bits each, with an offset and a step of 2 bytes each per group of 128
    changes = rounds * devices * (sizes.HEADER_BYTES + -(-block // 128) * (128 + 4))
    assert (result.bytes_up, result.bytes_down) == (exchanges * up + changes, exchanges * down + adapters)
    codes = rows * tokens * dim * (8 + 4) // 8
    assert result.payload_overhead == pytest.approx((up + down) / codes - 1, abs=1e-12)
    assert result.samples == exchanges * rows
    assert result.trainable_parameters == 6 * block + 96 * 10 + 10
    embedding = 16 * 96 + 96 + 96 + 17 * 96  # patches with bias, class token, positions
    frozen = 4 * (96 * 96 + 96) + 2 * 96 * 192 + 192 + 96 + 4 * 96
    assert result.device_parameters == embedding + frozen + block


def test_bytes_of_labels_at_home(tmp_path: Path) -> None:
    result = sflam.train(
        config.load(None, [*DIGITS, "learn.rounds=1", "model.labels=device"]), tmp_path / "run"
    )
    exchanges, rows, tokens, dim = 3 * 2, 16, 17, 96
    coarse, fine = (sizes.HEADER_BYTES + rows * tokens * (dim * bits // 8 + 4) for bits in (4, 8))
    # Up: activations, and the gradient of what came back; down: the last activations, and the gradient at the cut.
    # Neither holds a label, and the devices' bodies hold the head too.
    held = 8 * (4 * (96 + 96) + (96 + 192) + (192 + 96)) + 96 * 10 + 10
    assert result.bytes_up == exchanges * 2 * fine + 3 * sizes.adapter_body_bytes(held, 8)
    assert result.bytes_down == exchanges * 2 * coarse + 3 * sizes.adapter_body_bytes(held)
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "Samples and labels stayed on the devices" in card


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_seed_is_a_run(small: tuple[str, ...], tmp_path: Path) -> None:
    def train(name: str, *settings: str) -> tuple[bytes, list[Any]]:
        sflam.train(config.load(None, [*small, "learn.canonical=true", *settings]), tmp_path / name)
        _, rounds = history.read(tmp_path / name / "history.jsonl")
        return weights(tmp_path / name), [(item.loss, item.test_loss, item.total_bytes) for item in rounds]

    first = train("first")
    assert train("second") == first
    other, rounds = train("other", "seed=1")
    assert other != first[0] and rounds[0][0] != first[1][0][0]


@pytest.mark.parametrize(
    "setting",
    ["quant.bits_up=2", "quant.scheme=identity", "learn.method=sfl-v1", "model.cut=2", "learn.lr=1e-5"],
)
def test_streams_are_apart(small: tuple[str, ...], tmp_path: Path, setting: str) -> None:
    """What is drawn for one purpose does not move when another purpose draws more, less or otherwise."""

    def drawn(name: str, *settings: str) -> dict[str, Any]:
        run = sflam.start(config.load(None, [*small, "fleet.selected=2", *settings]), tmp_path / name)
        list(run.rounds())
        fleet: Any = run.assembly.fleet
        return {
            "partition": [part.tolist() for part in fleet.parts],
            "held out": run.assembly.splits.test.inputs.tolist(),
            "selection": [record.participants for record in run.records],
            "samples": [record.samples for record in run.records],
            "adapters": {name: tensor.tolist() for name, tensor in run.assembly.state.items()},
        }

    assert drawn("changed", setting) == drawn("plain")


def test_a_model_from_the_hub_is_fed_its_own_pixels(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache is laid out by hand; nothing is fetched."""
    snapshot = tmp_path / "hub" / "models--someone--vit" / "snapshots" / ("0" * 40)
    shutil.copytree(room / "vit", snapshot)
    (snapshot / "preprocessor_config.json").write_text('{"image_mean": [0.25], "image_std": [0.125]}')
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    job = config.load(None, [*SHORT, "model.name=someone/vit", f"data.name={room}/digits.npz"])
    run = sflam.start(job, tmp_path / "run")
    fleet: Any = run.assembly.fleet
    assert (fleet.examples.spec.mean, fleet.examples.spec.std) == ((0.25,), (0.125,))
    assert not any("preprocessor" in note for note in run.assembly.notes)
    next(run.rounds())
    run.finish(merge=True)
    assert "[0.25]" in (tmp_path / "run" / "model" / "preprocessor_config.json").read_text()


def test_pixels_that_are_not_described_are_reported(small: tuple[str, ...], tmp_path: Path) -> None:
    run = sflam.start(config.load(None, small), tmp_path / "run")
    assert any("has no preprocessor_config.json: pixels get mean" in note for note in run.assembly.notes)


def test_runs_started_at_once_get_a_folder_each(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = config.load(None, small)
    folders = [sflam.start(job).folder.path for _ in range(2)]
    assert folders == [Path("runs/digits-vit-sflam-1"), Path("runs/digits-vit-sflam-2")]


@pytest.mark.parametrize(
    "settings",
    [
        ["learn.method=sfl-v1", "quant.scheme=identity"],
        ["learn.method=sfl-v2"],
        ["learn.method=sfl-v2", "learn.server_update=batched"],
        ["learn.method=central"],
        ["learn.aggregation=freeze-a", "fleet.selected=1"],
        ["fleet.cuts=[0,1,3]", "model.dropout=0.1"],
        ["model.dtype=float64", "learn.local_steps=0", "learn.optimizer=sgd"],
        ["model.dtype=bfloat16"],
        ["model.labels=device", "fleet.cuts=[0,1,3]"],
    ],
    ids=lambda settings: " ".join(settings),
)
def test_what_a_run_reports_is_what_its_folder_does(
    small: tuple[str, ...], tmp_path: Path, settings: list[str]
) -> None:
    result = sflam.train(config.load(None, [*small, *settings]), tmp_path / "run")
    found = sflam.predict(tmp_path / "run")
    assert (found.accuracy, found.loss) == (result.accuracy, pytest.approx(result.loss, rel=1e-6))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_texts(tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(0)
    label = draw.integers(0, 3, 60)
    ids, lengths = draw.integers(3, 20, (60, 9)) + 10 * label[:, None], draw.integers(2, 10, 60)
    ids[np.arange(9)[None, :] >= lengths[:, None]] = 0
    np.savez(
        tmp_path / "texts.npz", input_ids=ids, lengths=lengths, label=np.array(["no", "maybe", "yes"])[label]
    )
    with quiet():
        tiny(kind, dtype=torch.float32).model.save_pretrained(tmp_path / kind)
    settings = [*SHORT, f"model.name={tmp_path / kind}", f"data.name={tmp_path}/texts.npz", "model.rank=2"]
    result = sflam.train(config.load(None, settings), tmp_path / "run")
    assert result.classes == ("maybe", "no", "yes")
    found = sflam.predict(tmp_path / "run")
    assert (found.accuracy, found.loss) == (result.accuracy, pytest.approx(result.loss, rel=1e-6))


class Picky(Uniform):
    """A quantizer of a user, which refuses what it is given from the second round on."""

    name = "picky"
    refusal = "picky wants 4 bits; got 8; see its page; never more"
    calls = 0

    def encode(self, x: Any, bits: int, seed: int) -> Any:
        """Count, and refuse."""
        Picky.calls += 1
        if Picky.calls > 20:
            raise QuantizerError(self.refusal)
        return super().encode(x, bits, seed)


def test_what_an_own_quantizer_refuses_is_shown_as_it_is(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, key, value in (
        (OWN, "quantizer", {"picky": ""}),
        (QUANTIZERS, "picky", Picky()),
        (TORCH_QUANTIZERS, "picky", TorchQuantizer(Picky())),
    ):
        monkeypatch.setitem(place, key, value)  # type: ignore[arg-type]
    with pytest.raises(QuantizerError) as raised:
        sflam.train(config.load(None, [*small, "quant.scheme=picky"]), tmp_path / "run")
    assert type(raised.value) is QuantizerError and str(raised.value) == Picky.refusal


@pytest.mark.parametrize("label", ["names", "numbers"])
def test_the_merged_model_knows_its_classes(small: tuple[str, ...], tmp_path: Path, label: str) -> None:
    with np.load(next(item.partition("=")[2] for item in small if item.startswith("data.name="))) as arrays:
        found = dict(arrays)
    names = list("abcdefghij" if label == "names" else "0123456789")
    if label == "names":
        found["label"] = np.array(names)[found["label"]]
    np.savez(tmp_path / "data.npz", **found)
    result = sflam.train(
        config.load(None, [*small, f"data.name={tmp_path / 'data.npz'}"]), tmp_path / "run", merge=True
    )
    written = transformers.AutoConfig.from_pretrained(Path(result.run_dir) / "model")
    classes = dict(enumerate(names[: len(written.id2label)]))
    assert written.id2label == classes
    assert written.label2id == {name: number for number, name in classes.items()}
