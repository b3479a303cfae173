"""Whatever a user gets wrong is one line a problem, with the value and the fix: exit code 2, nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Cli, Edit, assert_refused, cut_short, files, replaced, sets, written

SETTINGS = {
    "section": (["lern.rounds=3"], ["unknown section 'lern', did you mean 'learn'"]),
    "key": (["learn.round=3"], [r"unknown key of \[learn\] 'round', did you mean 'rounds'"]),
    "misplaced key": (
        ["learn.bits_up=3"],
        [r"bits_up is in \[learn\]; it belongs in \[fleet\] or \[quant\]"],
    ),
    "dataset": (["data.name=digit"], ["unknown dataset 'digit', did you mean 'digits'.*ending in .npz"]),
    "data file": (["data.name=no/such.npz"], [r"no/such\.npz: no such file; give a named dataset or"]),
    "column of inputs": (
        ["data.input=imag"],
        ["unknown column 'imag', did you mean 'image'.*set data.input"],
    ),
    "column of labels": (["data.label=lable"], ["unknown column 'lable', did you mean 'label'.*data.label"]),
    "model": (["model.name=nano-vitt"], ["unknown model 'nano-vitt', did you mean 'nano-vit'.*local folder"]),
    "hub name": (
        ["model.name=nobody/nothing"],
        ["model 'nobody/nothing' cannot be loaded.*check model.name"],
    ),
    "model folder": (["model.name=/no/such"], ["model '/no/such' cannot be loaded.*check model.name"]),
    "target": (['model.targets=["querry"]'], ["unknown model.targets entry 'querry'.*q_proj"]),
    "cut": (["model.cut=4"], ["cut 4 is out of range.*3 blocks.*between 0 .* and 3"]),
    "one of the cuts": (["fleet.cuts=[0,1,9]"], ["cut 9 is out of range.*3 blocks"]),
    "negative cut": (["model.cut=-1"], ["model.cut is -1; it must be 0 or more"]),
    "cuts": (["fleet.cuts=[1,2]"], ["fleet.cuts lists 2 numbers for 3 devices; give one per device"]),
    "devices": (["fleet.devices=50"], ["50 devices cannot share 49 training samples; use at most 49"]),
    "selected": (["fleet.selected=4"], ["fleet.selected is 4; .* between 0 .* and fleet.devices = 3"]),
    "alpha 0": (["data.alpha=0"], ["data.alpha is 0.0; it must be positive"]),
    "negative alpha": (["data.alpha=-2"], ["data.alpha is -2.0; it must be positive"]),
    "0 bits": (["quant.bits_up=0"], ["quant.bits_up is 0; it must be between 1 and 16"]),
    "17 bits": (["quant.bits_down=17"], ["quant.bits_down is 17; it must be between 1 and 16"]),
    "word for a number": (["learn.lr=fast"], ['learn.lr is "fast"; it must be a finite number']),
    "fraction": (["learn.rounds=2.5"], ["learn.rounds is 2.5; it must be a whole number"]),
    "no value": (["learn.rounds"], ["--set 'learn.rounds' is not an assignment; write section.key=value"]),
    "several at once": (
        ["learn.lr=-1", "quant.bits_up=0", "quant.bits_down=99", "model.rank=0", "x.y=1"],
        ["learn.lr is -1.0", "bits_up is 0", "bits_down is 99", "model.rank is 0", "unknown section 'x'"],
    ),
}


@pytest.mark.parametrize(
    ("settings", "sentences"), [pytest.param(*case, id=name) for name, case in SETTINGS.items()]
)
def test_a_wrong_setting(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, settings: list[str], sentences: list[str]
) -> None:
    output = cli("train", *sets(*small, *settings), "--out", tmp_path / "run")
    assert_refused(output, *sentences)
    assert list(tmp_path.iterdir()) == []


def test_a_job_file_that_is_missing_or_no_toml(cli: Cli, tmp_path: Path) -> None:
    assert_refused(
        cli("train", tmp_path / "job.toml"), r"job.toml cannot be read \(No such file.*path of a TOML"
    )
    (tmp_path / "job.toml").write_text("seed = 1\n[learn\n")
    assert_refused(cli("train", tmp_path / "job.toml"), "job.toml, line 2, column 7: not valid TOML")


WEIGHTS = "model.safetensors"
MODELS: dict[str, tuple[Edit, str]] = {
    "weights cut short": (cut_short(WEIGHTS, 0.5), "damaged.*fetch or save it again"),
    "no weights left": (cut_short(WEIGHTS, 0), "damaged.*fetch or save it again"),
    "other bytes": (written(WEIGHTS, b"\xff" * 999), "damaged.*fetch or save it again"),
    "no weights": (
        lambda folder: (folder / WEIGHTS).unlink(),
        "weights .* cannot be read.*model.safetensors",
    ),
    "other shapes": (
        replaced("config.json", '"hidden_size": 32', '"hidden_size": 48'),
        "lacks the weights of .*load a complete checkpoint",
    ),
    "wrong type": (replaced("config.json", '"hidden_size": 32', '"hidden_size": "x"'), "hidden_size.*again"),
    "unsupported": (
        written("config.json", '{"model_type": "sam"}'),
        r"'sam' is in no known family.*use a model of a known family: .*bert, .*vit",
    ),
    "unheard of": (written("config.json", '{"model_type": "vitt5"}'), "cannot be loaded.*vitt5"),
    "no JSON": (written("config.json", "{"), "cannot be loaded.*not a valid JSON"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded.*config.json"),
}


@pytest.mark.parametrize(
    ("edit", "sentence"), [pytest.param(*case, id=name) for name, case in MODELS.items()]
)
def test_a_wrong_model_folder(
    cli: Cli, room: Path, small: tuple[str, ...], tmp_path: Path, edit: Edit, sentence: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(room / "vit", model)
    edit(model)
    settings = sets(*small, f"model.name={model}")
    assert_refused(cli("train", *settings, "--out", tmp_path / "run"), sentence)
    assert_refused(cli("verify", model), sentence)
    assert not (tmp_path / "run").exists()


def test_texts_for_a_model_of_images(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "texts.npz", input_ids=np.ones((40, 6), np.int64), label=np.arange(40) % 4)
    output = cli("train", *sets(*small, f"data.name={tmp_path}/texts.npz"), "--out", tmp_path / "run")
    assert_refused(output, "data 'texts' is for sequence-class.*can only do image-class.*choose other data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["file", "file/below", "n" * 300], ids=["a file", "below a file", "too long"]
)
def test_a_run_folder_that_cannot_be_made(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("mine")
    output = cli("train", *sets(*small), "--out", tmp_path / name)
    assert_refused(output, r"run folder .* cannot be written \(.*\); choose another with --out")
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_parent(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir(mode=0o500)
    output = cli("train", *sets(*small), "--out", tmp_path / "parent" / "run")
    assert_refused(
        output, r"run folder .* cannot be written \(Permission denied\); choose another with --out"
    )


def test_a_gpu_that_is_not_there(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    output = cli("train", *sets(*small, "learn.device=cuda"), "--out", tmp_path / "run")
    assert_refused(output, 'learn.device is "cuda" but torch finds no CUDA device; use "auto" or "cpu"')
    assert not (tmp_path / "run").exists()


def test_the_default_folder_cannot_be_made(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("mine")
    assert_refused(cli("train", *sets(*small)), "run folder runs/digits-vit-sflam-1 cannot be written.*--out")
    assert files(tmp_path) == {"runs": b"mine"}


def test_a_folder_that_holds_a_run_is_left_alone(cli: Cli, small: tuple[str, ...], run: Path) -> None:
    before = files(run)
    assert_refused(
        cli("train", *sets(*small), "--out", run),
        "already holds a run; resume it with --resume .* or .*--out",
    )
    assert files(run) == before


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
def test_what_cannot_be_verified(cli: Cli, arguments: list[str], sentence: str) -> None:
    assert_refused(cli("verify", *arguments), sentence)


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
    cli: Cli, small: tuple[str, ...], tmp_path: Path, settings: list[str], where: str
) -> None:
    output = cli(
        "train", *sets(*small, "learn.lr=1e4", "learn.local_steps=4", *settings), "--out", tmp_path / "run"
    )
    clip = r"set learn\.clip \(it is off\)" if "learn.clip=0" in settings else r"lower learn\.clip \(1\)"
    assert_refused(
        output, rf"round 1 of 2 diverged{where}: .*; lower learn\.lr \(10000\) or {clip} and start a new run$"
    )
    assert (tmp_path / "run" / "history.jsonl").read_text().count("\n") == 1  # the header
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_later_round_that_diverges_leaves_the_rounds_before(
    cli: Cli, small: tuple[str, ...], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sflam.learn.split_fleet import LocalFleet

    honest = LocalFleet.average

    def diverging(self: LocalFleet, round: int, *arguments: Any) -> Any:
        found = honest(self, round, *arguments)
        if round == 1:
            found.state[next(iter(found.state))][0] = np.nan
        return found

    monkeypatch.setattr(LocalFleet, "average", diverging)
    output = cli("train", *sets(*small), "--out", tmp_path / "run")
    assert_refused(output, "round 2 of 2 diverged: .*; .*run keeps the rounds before it$")
    monkeypatch.undo()
    assert cli("train", "--resume", tmp_path / "run").code == 0
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


def test_a_full_disk_at_the_start(cli: Cli, small: tuple[str, ...], finished: Path, tmp_path: Path) -> None:
    with file_size_limit(4000):
        output = cli("train", *sets(*small), "--out", tmp_path / "run")
    assert_refused(output, r"checkpoint in .* cannot be written \(File too large\); free space")
    assert cli("train", "--resume", tmp_path / "run").code == 0
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("size", [6000, 90_000], ids=["adapter", "merged model"])
def test_a_full_disk_at_the_end(cli: Cli, run: Path, size: int) -> None:
    before = files(run)
    del before["result.json"]  # it names the folder
    with file_size_limit(size):
        output = cli("train", "--resume", run, "--merge")
    assert_refused(output, r"run.* cannot be written .*; .*--resume")
    assert_refused(cli("predict", run), "no finished run .*finish it")  # until all of it is whole again
    assert cli("train", "--resume", run, "--merge").code == 0
    assert before.items() <= files(run).items()
    assert cli("predict", run).code == 0


def test_a_disk_full_of_events(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sflam.report import tensorboard

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "write_all", full)
    output = cli("train", *sets(*small), "--out", tmp_path / "run")
    assert_refused(output, r"events cannot be written \(No space left on device\); free space")
    monkeypatch.undo()
    assert cli("train", "--resume", tmp_path / "run").code == 0


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
    assert done.stdout == "[]\n", "a wrong setting is reported before anything heavy is loaded"
    assert [line[:7] for line in done.stderr.splitlines()] == ["sflam: "] * 2
    assert list(tmp_path.iterdir()) == []


def test_several_jobs_that_cannot_be_served_together(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    names = ("one.toml", "two/One.toml", "my job.toml", "three.toml", "four.toml")
    one, clash, odd, three, four = (tmp_path / name for name in names)
    for path in (one, clash, odd, three):
        path.write_text("seed = 1\n")
    four.write_text("learn.rounds = 0\nlearn.method = 'central'\n")
    out = ("--out", tmp_path / "runs")
    assert_refused(
        cli("serve", one, clash, odd, *out), r"one.toml and .*One.toml have one name", r"'my job' is .*rename"
    )
    assert_refused(cli("serve", one, one, *out), "have one name, 'one'; rename one of them")
    assert_refused(
        cli("serve", one, three, "--ranks", 2, *out), "--ranks, and torchrun, lend memory to one job"
    )
    assert_refused(
        cli("serve", one, three, "--round", 2, *out), "--round goes back in one run: .*/NAME --round 2"
    )
    assert_refused(cli("serve", one, three, "--resume", tmp_path), "--resume continues a run as it was")
    assert_refused(cli("serve", one, tmp_path / "none.toml", *out), "none.toml cannot be read")
    assert_refused(cli("serve", one, four, *out), "learn.rounds is 0")
    four.write_text("learn.method = 'central'\n")
    assert_refused(cli("serve", one, four, *out), "four: learn.method")
    assert_refused(cli("serve", one, three, "--host", "0.0.0.0", *out), "in the clear")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "jobs.json").write_text("[]")
    assert_refused(cli("serve", "--resume", tmp_path), r"jobs.json cannot be read .*--resume .*/NAME")
