"""A checkpoint is the old state or the new one, whole, wherever the process is killed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from sflam.errors import RunError
from sflam.learn import checkpoint


def state(number: int) -> dict[Any, Any]:
    generator = torch.Generator().manual_seed(number)
    weights = torch.randn(5, 7, generator=generator)
    return {
        "round": number,
        "loss": 0.1 * number,
        "never": math.nan,
        "best": -math.inf,
        "name": 'naïve "quotes" \\ "sha256":"' + "0" * 64 + '"',
        "done": True,
        "nothing": None,
        "adapters": {"a.b": weights, "a": {"b": weights.t()}, "half": weights.to(torch.bfloat16)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "betas": (0.9, 0.999)},
        "streams": [1, [2, torch.arange(3)], "x"],
        "random": generator.get_state(),
        "empty": torch.zeros(0, 4),
        "mask": torch.tensor([True, False]),
        "double": torch.tensor([math.nan, 1e-300], dtype=torch.float64),
    }


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right) or torch.allclose(left, right, rtol=0, atol=0, equal_nan=True)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for item, other in zip(left, right, strict=True):
            assert_same(item, other)
    else:
        assert left == right or (math.isnan(left) and math.isnan(right))


def test_a_state_comes_back_as_it_went(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", state(1))
    loaded = checkpoint.load(tmp_path / "run")
    assert_same(loaded, state(1))


def test_none_when_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    assert checkpoint.load(tmp_path / "absent") is None


def test_an_empty_state_is_a_state(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {})
    assert checkpoint.load(tmp_path) == {}


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        checkpoint.save(tmp_path, state(number))
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [
        "checkpoint-00004.safetensors",
        "checkpoint-00005.safetensors",
    ]
    assert_same(checkpoint.load(tmp_path), state(4))


def test_numbers_grow_beyond_five_digits(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1)).rename(tmp_path / "checkpoint-99999.safetensors")
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.checkpoints(tmp_path)[-1].name == "checkpoint-100000.safetensors"
    assert_same(checkpoint.load(tmp_path), state(2))


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, {"weights": torch.ones(2, 3)})
    with safetensors.safe_open(path, "pt") as file:
        assert [file.get_tensor(name).tolist() for name in file.keys()] == [[[1.0] * 3] * 2]


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00001.safetensors.tmp").write_bytes(b"half")
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, state(1))
    assert os.listdir(tmp_path) == ["checkpoint-00001.safetensors"]


def test_a_flipped_bit_anywhere_is_named_and_never_loaded(tmp_path: Path) -> None:
    small = {"round": 1, "weights": torch.arange(4.0)}
    checkpoint.save(tmp_path, small)
    path = checkpoint.save(tmp_path, small)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"checkpoint-00002.* is damaged .*resume from checkpoint-00001"):
            checkpoint.load(tmp_path)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(RunError, match="checkpoint-00002"):
            checkpoint.load(tmp_path)
    path.unlink()
    assert_same(checkpoint.load(tmp_path), small)


def test_a_damaged_only_checkpoint_says_start_again(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {}).write_bytes(b"")
    with pytest.raises(RunError, match="delete that file to start the run again"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("value", [object(), {1.5: 1}, b"bytes", {None: 1}])
def test_what_cannot_be_stored_is_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"state\.inner"):
        checkpoint.save(tmp_path, {"inner": value})
    assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_refusing_disk_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    checkpoint.save(tmp_path, state(1))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(RunError, match=r"No space left on device\); free space"):
        checkpoint.save(tmp_path, state(2))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["checkpoint-00001.safetensors"]
    assert_same(checkpoint.load(tmp_path), state(1))


def test_data_is_synced_before_the_rename_and_the_rename_before_the_prune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        checkpoint.save(tmp_path, state(number))
    calls: list[str] = []

    def observed(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            if not calls or calls[-1] != name:
                calls.append(name)
            return real(*arguments)

        return call

    for name in ("write", "fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, observed(name))
    checkpoint.save(tmp_path, state(2))
    assert calls == ["write", "fsync", "replace", "fsync", "unlink", "fsync"]


# Runs in its own process, which forks one child per fault: torch is imported once, and every child dies by
# SIGKILL before, during (a torn write) or after its n-th call that changes the disk, until one survives.
KILLER = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from sflam import files
    from sflam.learn import checkpoint

    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    STEPS = ("open", "write", "fsync", "replace", "unlink")

    def state(number):
        return {"round": number, "weights": torch.full((300,), float(number)), "more": list(range(50))}

    def child(folder, fatal, moment):
        seen = [0]
        def wrap(name, real):
            def call(*arguments, **keywords):
                seen[0] += 1
                if seen[0] == fatal:
                    if moment == "during" and name == "write":
                        real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    if moment == "after":
                        real(*arguments, **keywords)
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **keywords)
            return call
        for name in STEPS:
            setattr(os, name, wrap(name, getattr(os, name)))
        replace = files.replace_file
        checkpoint.replace_file = lambda path, body: replace(path, body, chunk=512)
        checkpoint.save(folder, state(3))
        os._exit(0)

    outcomes = {"old": 0, "new": 0}
    for moment in ("before", "during", "after"):
        for fatal in range(1, 1000):
            folder = root / f"{moment}-{fatal}"
            checkpoint.save(folder, state(1))
            checkpoint.save(folder, state(2))
            pid = os.fork()
            if pid == 0:
                child(folder, fatal, moment)
            status = os.waitpid(pid, 0)[1]
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, "the child failed"
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            loaded = checkpoint.load(folder)
            number = loaded["round"]
            assert number in (2, 3), number
            assert torch.equal(loaded["weights"], state(number)["weights"])
            assert loaded["more"] == state(number)["more"]
            outcomes["old" if number == 2 else "new"] += 1
            checkpoint.save(folder, state(4))
            assert checkpoint.load(folder)["round"] == 4
            assert sorted(os.listdir(folder)) == [path.name for path in checkpoint.checkpoints(folder)]
            assert len(os.listdir(folder)) == 2
        else:
            raise AssertionError("no child survived")
        print(moment, fatal)
    print(outcomes)
    assert outcomes["old"] > 10 and outcomes["new"] > 5, outcomes
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_kill_9_at_every_step_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


DEEP = '{"tuple":' * 3000 + "[]" + "}" * 3000
CRAFTED = [
    "[" * 100_000 + "]" * 100_000,
    '{"dict":' * 3000 + "[]" + "}" * 3000,
    "[1]",
    "7",
    '{"dict": [[[1], 2]]}',
    '{"dict": 7}',
    '{"tensor": "absent"}',
    '{"tensor": "w", "dict": []}',
    '{"code": "import os"}',
    '{"float": "one"}',
    "{}",
    "not json",
    '{"tuple": [1]}',
    DEEP,
]


@pytest.mark.parametrize("skeleton", CRAFTED)
def test_a_crafted_checkpoint_is_one_line(tmp_path: Path, skeleton: str) -> None:
    metadata = {"skeleton": skeleton, "sha256": "0" * 64}
    body = checkpoint._sealed(safetensors.torch.save({"w": torch.zeros(1)}, metadata))
    (tmp_path / "checkpoint-00001.safetensors").write_bytes(body)
    with pytest.raises(RunError, match="is damaged") as found:
        checkpoint.load(tmp_path)
    assert len(str(found.value)) < 600 and "\n" not in str(found.value)
