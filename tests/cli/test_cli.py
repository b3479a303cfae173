"""The command line: help with examples, results on stdout, everything else on stderr, exit codes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from sflam.cli import shared
from tests.conftest import SHORT, Cli, sets


def real(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    code = "from sflam.cli import main; main()"
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, check=False)


HELP = {
    "": ["train", "compare", "report", "predict", "verify", "plan", "profile"],
    "train": [
        "Examples:",
        "sflam train job.toml --set learn.rounds=50",
        "sflam train --resume runs/",
        "--json",
    ],
    "compare": ["Examples:", "sflam compare job.toml --seeds 3", "Runs that are finished are not repeated"],
    "report": ["Examples:", "sflam report runs/compare", "self-contained HTML page"],
    "simulate": ["Examples:", "sflam simulate job.toml --set plan.method=equal", "virtual clock", "--resume"],
    "predict": ["Examples:", "sflam predict runs/digits-nano-vit-sflam-1 --data digits --out", "--label"],
    "plan": ["Examples:", "sflam plan network.toml --out plans/office", "--latency-weight", "Exit code 1"],
    "profile": ["Examples:", "sflam profile --out mine.toml --power-w 6", "--rate-mbps", "--from runs/"],
    "verify": ["Examples:", "sflam verify nano-vit", "--cut 2 --dtype float32", "Exit code 1"],
}


@pytest.mark.parametrize("command", HELP)
def test_help_shows_examples(cli: Cli, command: str) -> None:
    output = cli(*command.split(), "--help")
    text = " ".join(word for line in output.out for word in line.split())
    assert output.code == 0 and output.err == []
    for words in HELP[command]:
        assert words in text


def test_help_and_version_load_nothing_heavy() -> None:
    code = f"""
import sys
from sflam.cli import main
for command in {list(HELP)!r}:
    for option in ["--help", "--version"]:
        sys.argv = ["sflam", *command.split(), option]
        try:
            main()
        except SystemExit:
            pass
print(sorted({{"torch", "transformers", "peft", "matplotlib", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_libraries_are_loaded_without_garbage_collection_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(gc.isenabled()))
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with shared.loading("loading"):
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(KeyError), shared.loading("loading"):
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() and frozen == [False]


def test_the_version_is_the_package_s(cli: Cli) -> None:
    import sflam

    assert cli("--version").out == [f"sflam {sflam.__version__}"]


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--nothing"], ["train", "--set"], ["verify"]])
def test_a_wrong_command_is_reported_with_its_usage(cli: Cli, arguments: list[str]) -> None:
    output = cli(*arguments)
    assert output.code == 2 and output.out == []
    assert any("--help" in line or "requires an argument" in line for line in output.err)


def test_a_real_run_says_its_result_on_stdout_and_nothing_else(tmp_path: Path) -> None:
    from sflam.run.finish import Result

    (tmp_path / "job.toml").write_text("[learn]\nrounds = 5\n[quant]\nbits_up = 4\n")
    done = real("train", "job.toml", *sets(*SHORT, "learn.rounds=1"), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result.keys() == {field.name for field in fields(Result)}
    assert result.keys() >= {
        *("accuracy", "loss", "rounds", "bytes_up", "bytes_down", "payload_overhead", "trainable_parameters"),
        *("device_parameters", "run_dir"),
    }
    assert result["run_dir"] == "runs/digits-nano-vit-sflam-1" and result["rounds"] == 1
    assert json.loads((tmp_path / result["run_dir"] / "result.json").read_text()) == result
    assert "bits_up = 4" in (tmp_path / result["run_dir"] / "config.toml").read_text()
    errors = done.stderr.splitlines()
    assert errors[0] == "note: the head classifier is newly initialised, so it is trained in full"
    assert errors[1].startswith("note: memory, estimated: ")
    assert errors[2].startswith("round 1/1: loss ")
    assert errors[-1].startswith("run folder: runs/digits-nano-vit-sflam-1")
    assert not [text for text in errors if "Warning" in text or "Traceback" in text]


def test_without_json_the_table_is_the_result(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    output = cli("train", *sets(*small), "--out", tmp_path / "run", "--merge")
    assert output.code == 0
    assert output.out[1].split() == [
        "round",
        "loss",
        "test",
        "loss",
        "accuracy",
        "up",
        "down",
        "adapters",
        "time",
    ]
    assert any("after 2 rounds" in line for line in output.out)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_an_interrupted_run_says_how_to_go_on(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sflam.report.terminal import progress

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Progress, "update", interrupted)
    output = cli("train", *sets(*small), "--out", tmp_path / "run")
    monkeypatch.undo()
    assert output.code == 130 and output.out == []
    advice = output.err[-1]
    assert advice == f"stopped; go on with: sflam train --resume {tmp_path / 'run'}"
    output = cli(*advice.partition("sflam ")[2].split(), "--json")
    assert output.code == 0 and json.loads(output.out[-1])["rounds"] == 2
    assert [line[:9] for line in output.err if line.startswith("round")] == ["round 2/2"]


def test_verify_tells_equal_from_different(cli: Cli) -> None:
    output = cli("verify", "nano-vit", "--cut", "2", "--json")
    (row,) = json.loads(output.out[-1])["cuts"]
    assert output.code == 0 and len(output.out) == 1
    assert (
        json.loads(output.out[-1])["equal"] and max(row["loss"], row["activations"], row["gradients"]) < 1e-9
    )
    output = cli("verify", "nano-vit", "--cut", "2", "--perturb", "1e-3")
    assert output.code == 1 and any("NOT the whole model" in line for line in output.out)
