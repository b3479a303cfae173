"""Whatever a user gets wrong is one line a problem, with the value and the fix: exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Said, sets

Sflam = Callable[..., Said]
Edit = Callable[[Path], object]


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def problems(said: Said) -> list[str]:
    """Return what was told on stderr beside notes and progress."""
    return [line for line in said.err if not line.startswith(("note: ", "round "))]


def assert_refused(said: Said, *sentences: str) -> None:
    """These problems were told, a line each, and no others."""
    told = problems(said)
    assert (said.code, said.out, len(told)) == (2, [], len(sentences)), told
    for sentence in sentences:
        assert any(line.startswith("sflam: ") and re.search(sentence, line) for line in told), (sentence, told)


SETTINGS = {
    "section": (["lern.rounds=3"], ["unknown section 'lern', did you mean 'learn'"]),
    "key": (["learn.round=3"], [r"unknown key of \[learn\] 'round', did you mean 'rounds'"]),
    "misplaced key": (["learn.bits_up=3"], [r"bits_up stands in \[learn\]; it belongs in \[quant\]"]),
    "dataset": (["data.name=digit"], ["unknown dataset 'digit', did you mean 'digits'.*ending in .npz"]),
    "data file": (["data.name=no/such.npz"], [r"no/such\.npz: no such file; data\.name must be"]),
    "column of inputs": (["data.input=imag"], ["unknown column 'imag', did you mean 'image'.*set data.input"]),
    "column of labels": (["data.label=lable"], ["unknown column 'lable', did you mean 'label'.*data.label"]),
    "model": (["model.name=nano-vitt"], ["unknown model 'nano-vitt', did you mean 'nano-vit'.*local folder"]),
    "hub name": (["model.name=nobody/nothing"], ["model 'nobody/nothing' cannot be loaded.*check model.name"]),
    "model folder": (["model.name=/no/such"], ["model '/no/such' cannot be loaded.*check model.name"]),
    "target": (['model.targets=["querry"]'], ["unknown model.targets entry 'querry'.*q_proj"]),
    "cut": (["model.cut=4"], ["cut 4 is out of range.*3 blocks.*between 0 .* and 3"]),
    "one of the cuts": (["fleet.cuts=[0,1,9]"], ["cut 9 is out of range.*3 blocks"]),
    "negative cut": (["model.cut=-1"], ["model.cut is -1; it must be 0 or more"]),
    "cuts": (["fleet.cuts=[1,2]"], ["fleet.cuts lists 2 cuts for 3 devices; give one per device"]),
    "devices": (["fleet.devices=50"], ["50 devices cannot share 49 training samples; use at most 49"]),
    "selected": (["fleet.selected=4"], ["fleet.selected is 4; .* between 0 .* and fleet.devices = 3"]),
    "alpha 0": (["data.alpha=0"], ["data.alpha is 0.0; it must be a positive number"]),
    "negative alpha": (["data.alpha=-2"], ["data.alpha is -2.0; it must be a positive number"]),
    "0 bits": (["quant.bits_up=0"], ["quant.bits_up is 0; it must be between 1 and 16"]),
    "17 bits": (["quant.bits_down=17"], ["quant.bits_down is 17; it must be between 1 and 16"]),
    "word for a number": (["learn.lr=fast"], ['learn.lr is "fast"; it must be a finite number']),
    "fraction": (["learn.rounds=2.5"], ["learn.rounds is 2.5; it must be a whole number"]),
    "no value": (["learn.rounds"], ["--set 'learn.rounds' is not an assignment; write section.key=value"]),
    "several at once": (
        ["learn.lr=0", "quant.bits_up=0", "quant.bits_down=99", "model.rank=0", "x.y=1"],
        ["learn.lr is 0.0", "bits_up is 0", "bits_down is 99", "model.rank is 0", "unknown section 'x'"],
    ),
}


@pytest.mark.parametrize(
    ("settings", "sentences"), [pytest.param(*case, id=name) for name, case in SETTINGS.items()]
)
def test_a_wrong_setting(
    sflam: Sflam, small: tuple[str, ...], tmp_path: Path, settings: list[str], sentences: list[str]
) -> None:
    said = sflam("train", *sets(*small, *settings), "--out", tmp_path / "run")
    assert_refused(said, *sentences)
    assert list(tmp_path.iterdir()) == []


def test_a_job_file_that_is_missing_or_no_toml(sflam: Sflam, tmp_path: Path) -> None:
    assert_refused(sflam("train", tmp_path / "job.toml"), "job.toml cannot be read: No such file.*path of a TOML")
    (tmp_path / "job.toml").write_text("seed = 1\n[learn\n")
    assert_refused(sflam("train", tmp_path / "job.toml"), "job.toml, line 2, column 7: not valid TOML")


def cut_short(name: str, share: float) -> Edit:
    """Return the edit that leaves the first part of a file."""

    def edit(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(share * len(raw))])

    return edit


def replaced(name: str, old: str, new: str) -> Edit:
    """Return the edit that replaces a text that must be there."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


def written(name: str, content: str | bytes) -> Edit:
    """Return the edit that replaces a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


WEIGHTS = "model.safetensors"
MODELS: dict[str, tuple[Edit, str]] = {
    "weights cut short": (cut_short(WEIGHTS, 0.5), "damaged.*fetch or save it again"),
    "no weights left": (cut_short(WEIGHTS, 0), "damaged.*fetch or save it again"),
    "other bytes": (written(WEIGHTS, b"\xff" * 999), "damaged.*fetch or save it again"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "weights .* cannot be read.*model.safetensors"),
    "other shapes": (
        replaced("config.json", '"hidden_size": 32', '"hidden_size": 48'),
        "lacks the weights of .*load a complete checkpoint",
    ),
    "wrong type": (replaced("config.json", '"hidden_size": 32', '"hidden_size": "x"'), "hidden_size.*again"),
    "unsupported": (written("config.json", '{"model_type": "t5"}'), r"family 't5' \(known: bert, gpt2, vit\)"),
    "unheard of": (written("config.json", '{"model_type": "vitt5"}'), "cannot be loaded.*vitt5"),
    "no JSON": (written("config.json", "{"), "cannot be loaded.*not a valid JSON"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded.*config.json"),
}


@pytest.mark.parametrize(
    ("edit", "sentence"), [pytest.param(*case, id=name) for name, case in MODELS.items()]
)
def test_a_wrong_model_folder(
    sflam: Sflam, room: Path, small: tuple[str, ...], tmp_path: Path, edit: Edit, sentence: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(room / "vit", model)
    edit(model)
    settings = sets(*small, f"model.name={model}")
    assert_refused(sflam("train", *settings, "--out", tmp_path / "run"), sentence)
    assert_refused(sflam("verify", model), sentence)
    assert not (tmp_path / "run").exists()


def test_texts_for_a_model_of_images(sflam: Sflam, small: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "texts.npz", input_ids=np.ones((40, 6), np.int64), label=np.arange(40) % 4)
    said = sflam("train", *sets(*small, f"data.name={tmp_path}/texts.npz"), "--out", tmp_path / "run")
    assert_refused(said, "data 'texts' is for sequence-class.*can only do image-class.*choose other data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300], ids=["a file", "below a file", "too long"])
def test_a_run_folder_that_cannot_be_made(
    sflam: Sflam, small: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("mine")
    said = sflam("train", *sets(*small), "--out", tmp_path / name)
    assert_refused(said, r"run folder .* cannot be written \(.*\); choose another with --out")
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_parent(sflam: Sflam, small: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir(mode=0o500)
    said = sflam("train", *sets(*small), "--out", tmp_path / "parent" / "run")
    assert_refused(said, r"run folder .* cannot be written \(Permission denied\); choose another with --out")


def test_the_default_folder_cannot_be_made(
    sflam: Sflam, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("mine")
    assert_refused(sflam("train", *sets(*small)), "run folder runs/digits-vit-sflam-1 cannot be written.*--out")
    assert files(tmp_path) == {"runs": b"mine"}


@pytest.fixture(scope="module")
def finished(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; its owner keeps it as it is."""
    import sflam
    from sflam import config

    folder = tmp_path_factory.mktemp("runs") / "run"
    sflam.train(config.load(None, small), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_folder_that_holds_a_run_is_left_alone(sflam: Sflam, small: tuple[str, ...], run: Path) -> None:
    before = files(run)
    assert_refused(
        sflam("train", *sets(*small), "--out", run), "already holds a run; resume it with --resume .* or .*--out"
    )
    assert files(run) == before


def newest(folder: Path) -> Path:
    """Return the newest checkpoint of a run."""
    return max((folder / "checkpoints").iterdir())


def flipped(folder: Path) -> None:
    """Flip one bit in the middle of the newest checkpoint."""
    raw = bytearray(newest(folder).read_bytes())
    raw[len(raw) // 2] ^= 1
    newest(folder).write_bytes(raw)


def checkpointed(change: Callable[[dict[Any, Any]], object]) -> Edit:
    """Return the edit that adds a whole checkpoint with another content."""

    def edit(folder: Path) -> None:
        from sflam.learn import checkpoint

        state = checkpoint.load(folder / "checkpoints")
        assert state is not None
        change(state)
        checkpoint.save(folder / "checkpoints", state)

    return edit


def one_shorter(state: dict[Any, Any]) -> None:
    """Drop a row of one adapter, as another rank would."""
    name = next(iter(state["adapters"]))
    state["adapters"][name] = state["adapters"][name][1:].clone()


def line_cut(folder: Path) -> None:
    """Damage a line in the middle of the history."""
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    lines[1] = lines[1][:40] + "\n"
    (folder / "history.jsonl").write_text("".join(lines))


def line_lost(folder: Path) -> None:
    """Lose the last round of the history."""
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    (folder / "history.jsonl").write_text("".join(lines[:-1]))


RUNS: dict[str, tuple[Edit, str]] = {
    "no folder": (shutil.rmtree, r"run holds no run \(no config.toml\); give the folder"),
    "a flipped bit": (flipped, r"checkpoint-\d+\.safetensors is damaged .*delete that file to resume from check"),
    "another rank": (checkpointed(one_shorter), "is not of this run .*names or shapes.*start a new run"),
    "other targets": (checkpointed(lambda state: state["adapters"].popitem()), "is not of this run .*names"),
    "no adapters": (checkpointed(lambda state: state.pop("adapters")), "is not of this run .*adapters"),
    "no adapters at all": (checkpointed(lambda state: state.update(adapters=3)), "is not of this run"),
    "no rounds": (checkpointed(lambda state: state.update(round="x")), "is not of this run .*counts no rounds"),
    "too many rounds": (checkpointed(lambda state: state.update(round=9)), "holds 2 of the 9 rounds.*start a new"),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoint of the 2 rounds.*put the newest"),
    "a damaged line": (line_cut, r"history\.jsonl, line 2 is damaged .*delete this line"),
    "a lost line": (line_lost, "holds 1 of the 2 rounds its checkpoint has done.*start a new run"),
    "no history": (lambda run: (run / "history.jsonl").unlink(), r"history\.jsonl cannot be read.*folder of a run"),
    "a changed rank": (replaced("config.toml", "rank = 2", "rank = 4"), "was changed since .*model.rank = 2; put"),
    "a changed seed": (replaced("config.toml", "seed = 0", "seed = 1"), "was changed since .*seed = 0; put that"),
    "a damaged config": (written("config.toml", "x"), r"config\.toml, line 1.*not valid TOML"),
}


@pytest.mark.parametrize(("edit", "sentence"), [pytest.param(*case, id=name) for name, case in RUNS.items()])
def test_a_run_that_cannot_be_resumed_is_left_alone(sflam: Sflam, run: Path, edit: Edit, sentence: str) -> None:
    edit(run)
    before = files(run)
    assert_refused(sflam("train", "--resume", run), sentence)
    assert files(run) == before


def test_a_deleted_damaged_checkpoint_leaves_the_one_before(sflam: Sflam, run: Path) -> None:
    final = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    flipped(run)
    newest(run).unlink()  # what the refusal advises
    said = sflam("train", "--resume", run)
    assert said.code == 0 and next(line for line in said.err if line.startswith("round")).startswith("round 2/2")
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == final


def test_more_rounds_may_be_asked_for_later(sflam: Sflam, run: Path) -> None:
    replaced("config.toml", "rounds = 2", "rounds = 3")(run)
    assert sflam("train", "--resume", run).code == 0
    assert json.loads((run / "result.json").read_text())["rounds"] == 3


def test_resume_takes_nothing_beside_the_folder(sflam: Sflam, run: Path) -> None:
    said = sflam("train", "--resume", run, "--set", "learn.rounds=9")
    assert_refused(said, "leave out the job file, --set and --out")


PREDICT: dict[str, tuple[Edit, list[str], str]] = {
    "unfinished": (lambda run: (run / "result.json").unlink(), [], "no finished run .*finish it with .*--resume"),
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
    "texts": (lambda _: None, ["--data", "texts.npz"], "data 'texts' is for seq.*can only do image.*other data"),
    "another class": (lambda _: None, ["--data", "cats.npz"], 'has the class "cat", which the run does not know.*0, 1'),
    "no such column": (lambda _: None, ["--data", "cats.npz", "--input", "imag"], "column 'imag', did you mean"),
    "column of nothing": (lambda _: None, ["--input", "image"], "--input and --label .* with --data; give that"),
    "no run": (shutil.rmtree, [], r"holds no run \(no config.toml\); give the folder a run was written to"),
}


@pytest.mark.parametrize(
    ("edit", "options", "sentence"), [pytest.param(*case, id=name) for name, case in PREDICT.items()]
)
def test_what_cannot_be_predicted(
    sflam: Sflam, run: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(run.parent)
    np.savez("texts.npz", input_ids=np.ones((6, 6), np.int64))
    np.savez("cats.npz", image=np.zeros((4, 8, 8), np.uint8), label=np.array(["cat", "1", "cat", "2"]))
    edit(run)
    before = files(run.parent)
    assert_refused(sflam("predict", run, *options, "--out", "out.csv"), sentence)
    assert files(run.parent) == before


@pytest.mark.parametrize("out", ["no/out.csv", "."], ids=["no folder", "a folder"])
def test_predictions_that_cannot_be_written(sflam: Sflam, run: Path, tmp_path: Path, out: str) -> None:
    assert_refused(sflam("predict", run, "--out", tmp_path / out), "cannot be written .*choose another --out")


VERIFY = {
    "model": (["nano-vitt"], "unknown model 'nano-vitt', did you mean 'nano-vit'"),
    "cut": (["nano-vit", "--cut", "7"], "cut 7 is out of range.*6 blocks"),
    "a word": (["nano-vit", "--cut", "two"], "--cut is 'two'; give a number of blocks or all"),
    "dtype": (["nano-vit", "--dtype", "float16"], "--dtype is 'float16'; choose float64 or float32"),
    "task": (["nano-vit", "--task", "poetry"], "cannot do poetry; it can do image-classification"),
}


@pytest.mark.parametrize(
    ("arguments", "sentence"), [pytest.param(*case, id=name) for name, case in VERIFY.items()]
)
def test_what_cannot_be_verified(sflam: Sflam, arguments: list[str], sentence: str) -> None:
    assert_refused(sflam("verify", *arguments), sentence)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        pytest.param([], " on devices 0, 1, 2", id="the quantizer refuses NaN"),
        pytest.param(["model.cut=0"], " on devices 0, 1, 2", id="no gradient comes back"),
        pytest.param(["learn.method=sfl-v1", "learn.clip=0"], " on devices 0, 1, 2", id="floats"),
        pytest.param(["learn.method=central"], "", id="no cut"),
    ],
)
def test_diverging_training(
    sflam: Sflam, small: tuple[str, ...], tmp_path: Path, settings: list[str], where: str
) -> None:
    said = sflam("train", *sets(*small, "learn.lr=1e4", "learn.local_steps=4", *settings), "--out", tmp_path / "run")
    clip = r"set learn\.clip \(it is off\)" if "learn.clip=0" in settings else r"lower learn\.clip \(1\)"
    assert_refused(said, rf"round 1 of 2 diverged{where}: .*; lower learn\.lr \(10000\) or {clip} and start a new run$")
    assert (tmp_path / "run" / "history.jsonl").read_text().count("\n") == 1  # the header
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_later_round_that_diverges_leaves_the_rounds_before(
    sflam: Sflam, small: tuple[str, ...], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sflam.learn import local

    class Diverging(local.LocalFleet):
        def average(self, round: int, *arguments: Any) -> Any:
            found = super().average(round, *arguments)
            if round == 1:
                found.state[next(iter(found.state))][0] = np.nan
            return found

    monkeypatch.setattr("sflam.assembly.LocalFleet", Diverging)
    said = sflam("train", *sets(*small), "--out", tmp_path / "run")
    assert_refused(said, "round 2 of 2 diverged: .*; .*run keeps the rounds before it$")
    monkeypatch.undo()
    assert sflam("train", "--resume", tmp_path / "run").code == 0
    for name in ("adapter/adapter_model.safetensors",):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, as on a full disk (the error is another, its handling the same)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_at_the_start(sflam: Sflam, small: tuple[str, ...], finished: Path, tmp_path: Path) -> None:
    with file_size_limit(4000):
        said = sflam("train", *sets(*small), "--out", tmp_path / "run")
    assert_refused(said, "no checkpoint could be written to .*: File too large; free space")
    assert sflam("train", "--resume", tmp_path / "run").code == 0
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("size", [6000, 90_000], ids=["adapter", "merged model"])
def test_a_full_disk_at_the_end(sflam: Sflam, run: Path, size: int) -> None:
    before = files(run)
    with file_size_limit(size):
        said = sflam("train", "--resume", run, "--merge")
    assert_refused(said, r"run.* cannot be written .*; .*--resume")
    assert_refused(sflam("predict", run), "no finished run .*finish it")  # until all of it is whole again
    assert sflam("train", "--resume", run, "--merge").code == 0
    assert before.items() <= files(run).items()
    assert sflam("predict", run).code == 0


def test_the_real_command_line_ends_without_a_traceback(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom sflam import cli\n"
        "try:\n    cli.main()\nfinally:\n    print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--set", "learn.round=3", "--set", "quant.bits_up=0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == "[]\n", "a wrong setting is told before anything heavy is loaded"
    assert [line[:7] for line in done.stderr.splitlines()] == ["sflam: "] * 2
    assert list(tmp_path.iterdir()) == []
