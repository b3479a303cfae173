"""A run killed anywhere and resumed is the run that was never killed.

The killing happens in a process of its own (this file as a program): it loads everything once, then forks a child
for every death, so a death costs a fraction of a second. Every child starts from the same assembled job; that
assembling again gives the same job is what the tests with real processes show.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import sets

ROOT = Path(__file__).parents[2]
Variant = tuple[str, str, str]
VARIANTS = [
    ("fedavg", "reset", "server"),
    ("fedavg", "keep", "device"),
    ("residual", "reset", "device"),
    ("residual", "keep", "server"),
]
DISK = ("write", "replace", "rename", "unlink", "mkdir")
"""At an fsync a kill leaves what it leaves at the next of these."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


def settings_of(small: tuple[str, ...], variant: Variant, rounds: int) -> list[str]:
    """Return a short run with coarse codes and devices drawn by lot, so that anything forgotten shows."""
    more = ("learn.canonical=true", "learn.local_steps=1", "quant.bits_up=4", f"learn.rounds={rounds}")
    aggregation, state, labels = variant
    chosen = (f"learn.aggregation={aggregation}", f"learn.state={state}", f"model.labels={labels}")
    return [*small, *more, *chosen, "fleet.selected=2"]


def outcome(folder: Path) -> dict[str, Any]:
    """Return what must not depend on interruptions: all rounds, the result, the bytes of adapter and model."""
    header, *rounds = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    result = json.loads((folder / "result.json").read_text())
    for clocked in (*rounds, result):
        del clocked["seconds"]
        clocked.pop("evaluating_s", None)
    del result["run_dir"], result["evaluating_share"]
    weights = [*folder.glob("adapter/*"), *folder.glob("model/*")]
    return {
        "config": (folder / "config.toml").read_text(),
        "header": header,
        "rounds": rounds,
        "result": result,
        "weights": {path.name: path.read_bytes() for path in weights},
        "picture": (folder / "curves.png").read_bytes()[:8],
    }


def killed(
    small: tuple[str, ...], root: Path, how: str, variants: Sequence[Variant], rounds: int, count: int
) -> Any:
    """Run this file as a program, see ``main``; return what it says."""
    settings = json.dumps({"-".join(variant): settings_of(small, variant, rounds) for variant in variants})
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.test_resume", how, str(root), settings, str(count)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_fork
@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_instants(small: tuple[str, ...], tmp_path: Path, count: int) -> None:
    rounds_done = killed(small, tmp_path, "instants", VARIANTS, rounds=4, count=count)
    # One that comes too late three times, after the child's end, kills nothing.
    assert len(rounds_done) > 0.7 * len(VARIANTS) * count and len(set(rounds_done)) >= 3, rounds_done


@needs_fork
@pytest.mark.parametrize("variants", [VARIANTS[-1:], pytest.param(VARIANTS[:-1], marks=pytest.mark.slow)])
def test_kill_9_at_every_call_that_changes_the_disk(
    small: tuple[str, ...], tmp_path: Path, variants: Sequence[Variant]
) -> None:
    rounds_done = killed(small, tmp_path, "calls", variants, rounds=2, count=10_000)
    assert len(rounds_done) > 30 * len(variants) and set(rounds_done) == {0, 1, 2}, rounds_done


def command(*arguments: object) -> list[str]:
    """Return a real command line."""
    return [sys.executable, "-c", "from sflam.cli import main; main()", *map(str, arguments)]


def dies(arguments: Sequence[object], after: str, seconds: float) -> bool:
    """Run a real command line and kill it some time after it printed a line; return whether it was still alive."""
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": ROOT, "text": True}
    with subprocess.Popen(command(*arguments), **output) as process:  # type: ignore[call-overload]
        heard = []
        for line in process.stderr:
            heard.append(line)
            if line.startswith(after):
                break
        time.sleep(seconds)
        process.kill()
    assert process.returncode in (0, -signal.SIGKILL), heard
    return bool(process.returncode)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids="-".join)
def test_kill_9_of_real_processes(small: tuple[str, ...], tmp_path: Path, variant: Variant) -> None:
    options = sets(*settings_of(small, variant, rounds=4))
    draw, deaths = random.Random(5), 0
    quiet: dict[str, Any] = {"check": True, "capture_output": True, "cwd": ROOT}
    subprocess.run(command("train", *options, "--out", tmp_path / "whole"), **quiet)
    for number in range(10):
        run = tmp_path / f"run-{number}"
        first = draw.choice(["note: the head", "round 1", "round 2"])
        deaths += dies(["train", *options, "--out", run], first, draw.uniform(0, 0.2))
        deaths += dies(["train", "--resume", run], "round 4", draw.uniform(0, 1))
        subprocess.run(command("train", "--resume", run), **quiet)
        assert outcome(run) == outcome(tmp_path / "whole")
    assert deaths >= 12, "most of the twenty come in time"


def test_an_unfinished_adapter_is_not_used(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sflam
    from sflam import config
    from sflam.errors import RunError
    from sflam.run import finish as result

    run = tmp_path / "run"
    sflam.train(config.load(None, settings_of(small, VARIANTS[0], 2)), run)
    expected = outcome(run)

    def killed_halfway(_: object, folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(result, "save", killed_halfway)
    with pytest.raises(KeyboardInterrupt):
        sflam.resume(run).finish()  # a finished run, finished again
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"holds no finished run .* finish it with"):
        sflam.predict(run)
    again = sflam.resume(run)
    assert list(again.rounds()) == []
    again.finish()
    assert outcome(run) == expected


def test_the_result_is_the_last_thing_written_and_all_of_it_is_on_disk_before(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sflam
    from sflam import config

    run = sflam.start(config.load(None, settings_of(small, VARIANTS[0], 1)), tmp_path / "run")
    list(run.rounds())
    calls: list[tuple[str, str]] = []
    replace, fsync = os.replace, os.fsync

    def name_of(descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    monkeypatch.setattr(
        os, "replace", lambda old, new: (calls.append(("replace", Path(new).name)), replace(old, new))
    )
    monkeypatch.setattr(os, "fsync", lambda one: (calls.append(("fsync", name_of(one))), fsync(one)))
    run.finish(merge=True)
    last = calls.index(("replace", "result.json"))
    synced = {name for call, name in calls[:last] if call == "fsync"}
    written = {path.name for folder in ("adapter", "model") for path in (tmp_path / "run" / folder).iterdir()}
    assert written <= synced and "adapter_model.safetensors" in written and "model.safetensors" in written
    assert calls[last + 1 :] == [("fsync", "run")]


# From here on: the program that kills.


def main() -> None:
    """``how`` root settings count: kill children at random instants, or at every call that changes the disk.

    ``settings`` names several runs; each is killed ``count`` times at most. After a death a fresh child resumes, and
    what it leaves is compared with an undisturbed run. The last line printed lists, for every death, the rounds then
    in the history.
    """
    import torch

    torch.set_num_threads(1)  # before the first fork: a pool of threads does not survive one
    from sflam.files import replace_file
    from sflam.run import finish as result

    gc.disable()  # in a child a collection writes to, and so copies, every page that is shared with this process
    how, root, settings, count = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
    drawn = b"drawing takes most of a second"
    result.draw_curves = result.draw_partition = lambda *_, **__: drawn
    result.figure.save = lambda picture, path: replace_file(path, picture)
    killing = {"instants": instants, "calls": calls}[how]
    print(
        json.dumps(
            [done for name, words in settings.items() for done in killing(Runs(root / name, words), count)]
        )
    )


class Runs:
    """Runs of one job, each in a child process of its own."""

    def __init__(self, root: Path, settings: list[str]) -> None:
        from sflam import config
        from sflam.run import assemble as assembly

        self.root, self.job = root, config.load(None, settings)
        self.assembly = assembly.assemble(self.job)
        began = time.monotonic()
        assert ended(self.forked("whole"))
        self.seconds, self.expected = time.monotonic() - began, outcome(root / "whole")

    def forked(self, name: str, before: Callable[[], object] = lambda: None) -> int:
        """Start a child that runs, or resumes, the folder ``name`` to its end; return its id."""
        if pid := os.fork():
            return pid
        try:
            from sflam.run import start as jobs

            jobs.assemble = lambda *_: self.assembly  # the child's own copy of it
            before()
            folder = self.root / name
            run = jobs.resume(folder) if (folder / "config.toml").exists() else jobs.start(self.job, folder)
            list(run.rounds())
            run.finish()
        except BaseException as error:
            print(f"{name}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)

    def survived(self, name: str) -> int:
        """Resume a killed run, compare it with the undisturbed one, and return the rounds it had done."""
        history = self.root / name / "history.jsonl"
        done = history.read_bytes().count(b"\n") - 1 if history.exists() else 0
        assert ended(self.forked(name))
        assert outcome(self.root / name) == self.expected, name
        return done


def ended(pid: int) -> bool:
    """Wait for a child; return whether it reached its end rather than being killed."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "a child failed"
    return True


def instants(runs: Runs, count: int) -> Iterator[int]:
    """Kill at seeded instants spread over the run."""
    draw, seconds = random.Random(0), runs.seconds
    for number in range(count):
        for name in (f"{number}", f"{number} again", f"{number} once more"):
            pid = runs.forked(name)
            time.sleep((number + draw.random()) / count * 0.9 * seconds)
            os.kill(pid, signal.SIGKILL)
            if not ended(pid):
                yield runs.survived(name)
                break
            seconds *= 0.7  # too late: the machine was busier when the undisturbed run was timed


def calls(runs: Runs, count: int) -> Iterator[int]:
    """Kill at the first call that changes the disk, at the second, ... until a child outlives its last."""
    for number in range(1, count):
        if ended(runs.forked(f"{number}", partial(die_at, number))):
            return
        yield runs.survived(f"{number}")


def die_at(fatal: int) -> None:
    """Make the ``fatal``-th call that changes the disk the last thing this process does; a write is torn."""
    seen = 0

    def deadly(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == fatal:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)

        return call

    for name in DISK:
        setattr(os, name, deadly(name))


if __name__ == "__main__":
    main()
