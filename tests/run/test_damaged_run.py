"""A run folder that something went wrong with is refused in one line, and left as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, Edit, assert_refused, files, replaced, written
from tests.held import held_elsewhere


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
    "a flipped bit": (
        flipped,
        r"checkpoint-\d+\.safetensors is damaged .*delete that file to resume from check",
    ),
    "another rank": (checkpointed(one_shorter), "is not of this run .*names or shapes.*start a new run"),
    "other targets": (checkpointed(lambda state: state["adapters"].popitem()), "is not of this run .*names"),
    "no adapters": (checkpointed(lambda state: state.pop("adapters")), "is not of this run .*adapters"),
    "no adapters at all": (checkpointed(lambda state: state.update(adapters=3)), "is not of this run"),
    "no rounds": (
        checkpointed(lambda state: state.update(round="x")),
        "is not of this run .*counts no rounds",
    ),
    "too many rounds": (
        checkpointed(lambda state: state.update(round=9)),
        "holds 2 of the 9 rounds.*start a new",
    ),
    "no checkpoints": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "no checkpoint of the 2 rounds.*put the newest",
    ),
    "a damaged line": (line_cut, r"history\.jsonl, line 2 is damaged .*delete this line"),
    "a lost line": (line_lost, "holds 1 of the 2 rounds its checkpoint has done.*start a new run"),
    "no history": (
        lambda run: (run / "history.jsonl").unlink(),
        r"history\.jsonl cannot be read.*folder of a run",
    ),
    "a changed rank": (
        replaced("config.toml", "rank = 2", "rank = 4"),
        "was changed since .*model.rank = 2; put",
    ),
    "a changed seed": (
        replaced("config.toml", "seed = 0", "seed = 1"),
        "was changed since .*seed = 0; put that",
    ),
    "a damaged config": (written("config.toml", "x"), r"config\.toml, line 1.*not valid TOML"),
}


@pytest.mark.parametrize(("edit", "sentence"), [pytest.param(*case, id=name) for name, case in RUNS.items()])
def test_a_run_that_cannot_be_resumed_is_left_alone(cli: Cli, run: Path, edit: Edit, sentence: str) -> None:
    edit(run)
    before = files(run)
    assert_refused(cli("train", "--resume", run), sentence)
    assert files(run) == before


def test_a_run_that_another_process_writes_to_is_left_alone(cli: Cli, run: Path) -> None:
    before = files(run)
    with held_elsewhere(run):
        for command in ("train", "serve"):
            assert_refused(
                cli(command, "--resume", run), "another process is writing to the run .* wait until"
            )
    assert files(run) == before
    assert cli("train", "--resume", run).code == 0


def test_a_deleted_damaged_checkpoint_leaves_the_one_before(cli: Cli, run: Path) -> None:
    final = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    flipped(run)
    newest(run).unlink()  # what the refusal advises
    output = cli("train", "--resume", run)
    assert output.code == 0 and next(line for line in output.err if line.startswith("round")).startswith(
        "round 2/2"
    )
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == final


def test_more_rounds_may_be_asked_for_later(cli: Cli, run: Path) -> None:
    replaced("config.toml", "rounds = 2", "rounds = 3")(run)
    assert cli("train", "--resume", run).code == 0
    assert json.loads((run / "result.json").read_text())["rounds"] == 3


def test_resume_takes_nothing_beside_the_folder(cli: Cli, run: Path) -> None:
    output = cli("train", "--resume", run, "--set", "learn.rounds=9")
    assert_refused(output, "leave out the job file, --set, --out and --plan")
