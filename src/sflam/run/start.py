"""Start a run, or resume one after a crash: from a job, or a folder, to a run that is under way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sflam.config import Job, changes, plain
from sflam.errors import RunError
from sflam.files import writing
from sflam.learn import checkpoint
from sflam.learn.aggregate import trained_numbers
from sflam.learn.best import BestRound, restored
from sflam.learn.fleet import Fleet, expect_fleet
from sflam.learn.personal import travelling
from sflam.learn.world.world import ALONE, World
from sflam.locks import Hold
from sflam.model.adapters import State
from sflam.planner.leakage import expect_given_cuts
from sflam.records import history
from sflam.records.history import History, RoundRecord
from sflam.records.run_folder import RunFolder, default_folder
from sflam.run.assemble import Assembly, assemble
from sflam.run.callbacks import Callback, train_watched, watched
from sflam.run.contents import MOVABLE
from sflam.run.finish import Result
from sflam.run.follow_plan import follow
from sflam.run.partition import expect_partition, keep_partition
from sflam.run.run import Run
from sflam.run.situations import moving_cuts
from sflam.simulate.setup import simulated

Around = Callable[[Fleet], Fleet]
CHANGEABLE = {"learn.rounds", "learn.device", "model.trunk_weights", *MOVABLE}
"""What may be edited in a run's config.toml before it is resumed: how long, and where things are."""


def start(
    job: Job,
    folder: str | Path | None = None,
    *,
    around: Around | None = None,
    world: World = ALONE,
    command: str = "",
) -> Run:
    """Assemble a job and make its folder (``runs/data-model-method-N`` by default).

    Args:
        job: the settings.
        folder: where the run is written.
        around: returns a fleet of one's own around the job's, as a :class:`sflam.FleetAround` is.
        world: the ranks that train together, of which this is the first.
        command: that runs it; by default ``simulate`` or ``train``.

    Raises:
        SflamError: anything a user can mend; nothing is left half-written.
    """
    if folder is not None:
        RunFolder(Path(folder)).expect_free()  # before minutes of loading
    job, notes = follow(job)
    if not (job.network.simulate and moving_cuts(job)):
        expect_given_cuts(job)
    assembly = _assembled(job, around, world, command)
    assembly = replace(assembly, notes=(*notes, *assembly.notes))
    fleet = _fleet(assembly)  # before anything is written
    run = RunFolder(default_folder(job) if folder is None else Path(folder))
    run.create(assembly.job)  # as it was resolved
    return _begin(assembly, fleet, run, run.hold())


def resume(
    folder: str | Path,
    *,
    around: Around | None = None,
    rounds: int | None = None,
    world: World = ALONE,
    command: str = "",
) -> Run:
    """Go on with the run in ``folder`` from its newest checkpoint; a finished run is finished again.

    Args:
        folder: of the run.
        around: as given to :func:`start`.
        rounds: go back to where so many rounds were done; what was done since is forgotten.
        world: the ranks that train together, of which this is the first; any number, whatever the run began with.
        command: that runs it; by default ``simulate`` or ``train``.

    Raises:
        RunError: the folder holds no run, a damaged one, one of another fleet, or one whose configuration was changed;
            it is then as before.
    """
    run = RunFolder(Path(folder))
    job = run.read_job()
    held = run.hold()
    if rounds is not None:
        checkpoint.roll_back(run.checkpoints, rounds)
        with writing(run.result, "delete it"):
            run.forget_result()  # it vouches for what is forgotten
    saved = checkpoint.load(run.checkpoints)
    records: list[RoundRecord] = []
    if saved is not None or run.history.exists():
        header, records = history.read(run.history)
        _expect_same(run, header, job)
    if saved is None:
        return _begin_again(run, job, len(records), around, held, world, command)
    done = saved.get("round")
    if not isinstance(done, int):
        raise _misfit(run, "it counts no rounds")
    if len(records) < done:
        raise RunError(
            f"{run.history} holds {len(records)} of the {done} rounds its checkpoint has done; the folder is "
            "damaged, start a new run"
        )
    assembly = _assembled(job, around, world, command)
    expect_partition(run, assembly)
    history.expect_charges(run.history, records, job.fleet.devices, assembly.backbone.depth)
    fleet = _fleet(assembly)
    fleet.keep_in(run.momenta, Run.kept)
    state, best = _restored(assembly, fleet, run, saved, records[:done])
    return Run(assembly, run, state, history.rewind(run.history, done), best, fleet, held)


def train(
    job: Job,
    folder: str | Path | None = None,
    *,
    merge: bool = False,
    around: Around | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Run a job from start to finish and return its result.

    Args:
        job: the settings.
        folder: where the run is written.
        merge: also write the merged model.
        around: a fleet of one's own; see :func:`start`.
        callbacks: called while it trains: :class:`sflam.Callback`.

    Raises:
        SflamError: see :func:`start`.
    """
    run = start(job, folder, around=around)
    with watched(callbacks):
        train_watched(run, callbacks)
        result = run.finish(merge=merge)
        for each in callbacks:
            each.finished(result)
    return result


def _begin_again(
    run: RunFolder,
    job: Job,
    done: int,
    around: Around | None,
    held: Hold,
    world: World,
    command: str,
) -> Run:
    """Begin a run anew that has no checkpoint: the first one is written before any round, the second after round 1."""
    if done > 1:
        raise RunError(
            f"{run.checkpoints} holds no checkpoint of the {done} rounds in {run.history}; put the newest one back, or "
            "start a new run"
        )
    assembly = _assembled(job, around, world, command)
    expect_partition(run, assembly)
    run.history.unlink(missing_ok=True)
    return _begin(assembly, _fleet(assembly), run, held)


def _assembled(job: Job, around: Around | None, world: World, command: str) -> Assembly:
    """Assemble a job, with a fleet of the user's own around its fleet where one is given."""
    assembly = assemble(job, world, command)
    if around is None:
        return assembly
    fleet = around(assembly.fleet)
    expect_fleet(fleet)
    return replace(assembly, fleet=fleet)


def _fleet(assembly: Assembly) -> Fleet:
    """Return what trains: the assembly's fleet, or that fleet over a simulated network."""
    job = assembly.job
    if not job.network.simulate:
        return assembly.fleet
    numbers = trained_numbers(travelling(assembly.state, job.learn.personal), job.learn.practice.aggregation)
    return simulated(job, assembly.fleet, assembly.halves, assembly.parts, assembly.splits.train, numbers)


def _begin(assembly: Assembly, fleet: Fleet, folder: RunFolder, held: Hold) -> Run:
    keep_partition(folder, assembly)
    with History(folder.history) as log:
        log.start(plain(assembly.job), assembly.job.seed)
    fleet.keep_in(folder.momenta, Run.kept)
    run = Run(assembly, folder, assembly.state, [], fleet=fleet, held=held)
    run.save()
    return run


def _expect_same(run: RunFolder, header: Mapping[str, Any], job: Job) -> None:
    """Raise RunError when ``job`` is not the one the run was started with, which its history remembers."""
    before = header.get("config")
    changed = changes(job, before) if isinstance(before, dict) else {}
    # A schedule that spans the run was followed for the old number of rounds.
    changeable = CHANGEABLE - ({"learn.rounds"} if job.learn.spans_run else set())
    edits = [f"{name} = {json.dumps(was)}" for name, (was, _) in changed.items() if name not in changeable]
    if edits:
        raise RunError(
            f"{run.config} was changed since the run began with {', '.join(edits)}; put that back, or start a new run"
        )


def _restored(
    assembly: Assembly, fleet: Fleet, run: RunFolder, saved: Mapping[Any, Any], records: list[RoundRecord]
) -> tuple[State, BestRound | None]:
    """Put the fleet back to ``saved``; return its adapters and the best so far, where that is kept.

    Raises:
        RunError: it is of another run.
    """
    if (name := saved.get("fleet_name")) != fleet.name:
        raise RunError(
            f"{run.path} was trained by the fleet {name!r}, not by {fleet.name!r}; resume it from Python with the same "
            "one, as in sflam.resume(folder, around=...), or start a new run"
        )
    try:
        found = {name: tensor.shape for name, tensor in saved["adapters"].items()}
        if found != {name: tensor.shape for name, tensor in assembly.state.items()}:
            raise ValueError("its adapters have other names or shapes")
        fleet.restore(saved["fleet"])
        best = None
        if assembly.job.learn.keep == "best" and records:
            best = restored(saved["best"], records, assembly.state)
        return {name: saved["adapters"][name].to(tensor) for name, tensor in assembly.state.items()}, best
    except (AttributeError, LookupError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise _misfit(run, str(error)) from error


def _misfit(run: RunFolder, reason: str) -> RunError:
    return RunError(
        f"the newest checkpoint in {run.checkpoints} is not of this run ({reason}); put the right one back, or start a "
        "new run"
    )
