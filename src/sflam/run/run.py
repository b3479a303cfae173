"""A run from its job to its folder: start it, resume it after a crash, finish it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sflam.config import Job, changes
from sflam.errors import DivergedError, NotFiniteError, QuantizerError, RunError, WireError
from sflam.learn import checkpoint
from sflam.learn.aggregate import trained_numbers
from sflam.learn.best import BestRound, best_of, restored
from sflam.learn.fleet import Fleet, expect_fleet
from sflam.learn.round import train as train_rounds
from sflam.model.adapters import State
from sflam.records import history
from sflam.records.history import History, RoundRecord
from sflam.records.run_folder import RunFolder, default_folder
from sflam.report.tensorboard import Events
from sflam.run.assemble import Assembly, assemble
from sflam.run.finish import Result, finish
from sflam.run.follow_plan import follow
from sflam.simulate.setup import deepest_placements, simulated

Around = Callable[[Fleet], Fleet]
CHANGEABLE = {"learn.rounds", "learn.device", "data.name", "model.name"}
"""What may be edited in a run's config.toml before it is resumed: how long, and where things are."""


class Run:
    """A run under way: iterate :meth:`rounds`, then :meth:`finish`.

    Attributes:
        assembly: its pieces.
        folder: where it is written.
        records: the rounds done so far.
        best: the best of them, with ``learn.keep = "best"``.
        fleet: trains; that of the assembly, on a virtual clock where a network is simulated.
    """

    def __init__(
        self,
        assembly: Assembly,
        folder: RunFolder,
        state: State,
        records: list[RoundRecord],
        best: BestRound | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self.assembly, self.folder = assembly, folder
        self.fleet = fleet or assembly.fleet
        self.state, self.records, self.best = state, records, best

    @property
    def job(self) -> Job:
        """What was asked for."""
        return self.assembly.job

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what was guessed or decided on the way."""
        return self.assembly.notes + self.fleet.notes

    def rounds(self) -> Iterator[RoundRecord]:
        """Run the rounds not done yet; each is on disk, with a state to resume from, when it is yielded.

        Raises:
            DivergedError: a round diverged; it is not kept.
            RunError: the folder cannot be written any more.
        """
        job, left = self.job, range(len(self.records), self.job.learn.rounds)
        how = self.assembly.evaluate, left, job.learn.evaluate_every
        with History(self.folder.history) as log, Events(self.folder.path, done=self.records) as events:
            with self._divergence():
                for record, state in train_rounds(self.fleet, self.state, *how):
                    self._expect_finite(record, state)
                    # The history first: a crash between the two repeats the round, and the rewind forgets its line.
                    log.append(record)
                    if job.learn.keep == "best":
                        self.best = best_of(self.best, record, state, self.assembly.backbone.task)
                    _checkpoint(self.folder, record.round + 1, state, self.fleet, self.best)
                    self.state = state
                    self.records.append(record)
                    events.add(record)
                    yield record

    def finish(self, *, merge: bool = False) -> Result:
        """Write adapter, card, picture and, last, the result; ``merge`` also writes the merged model.

        Raises:
            RunError: the folder cannot be written any more; the run can be resumed, which finishes it.
        """
        if merge and self.job.model.trunk_bits:
            raise RunError(
                f"merging would round what was trained to model.trunk_bits = {self.job.model.trunk_bits}; finish "
                f"the run without merging (sflam train --resume {self.folder.path}) and merge its adapter into the "
                "unquantized model with peft"
            )
        try:
            self.folder.forget_result()
            assembly = self.assembly
            if deepest := deepest_placements(self.job, self.records):
                self.fleet.place(deepest)
                assembly = assembly.refitted()
            kept = self.best or BestRound(self.records[-1], self.state)
            return finish(assembly, self.folder, kept, self.records, merge)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"run folder {self.folder.path} cannot be written ({error}); make room, then finish the run with "
                f"sflam train --resume {self.folder.path}"
            ) from error

    @contextmanager
    def _divergence(self) -> Iterator[None]:
        """Raise DivergedError where what is not finite was about to cross the cut."""
        try:
            yield
        except (QuantizerError, WireError) as error:
            finite = not (isinstance(error, NotFiniteError) or self.fleet.diverged())
            if isinstance(error, WireError) and finite:
                raise  # a body too large, say
            raise self._diverged(len(self.records), str(error).partition(";")[0]) from error

    def _expect_finite(self, record: RoundRecord, state: State) -> None:
        """Raise DivergedError for a round that ends in NaN or infinity."""
        # Every adapter has a part in the test loss, so one that is not finite shows in it.
        if record.test_loss is None and not all(tensor.isfinite().all() for tensor in state.values()):
            raise self._diverged(record.round, "its adapters hold NaN or infinity")
        for name, value in (("training loss", record.loss), ("test loss", record.test_loss)):
            if value is not None and not math.isfinite(value):
                raise self._diverged(record.round, f"its {name} is {value}")

    def _diverged(self, number: int, reason: str) -> DivergedError:
        learn, devices = self.job.learn, self.fleet.diverged()
        named = ", ".join(map(str, devices[:5])) + (", ..." if len(devices) > 5 else "")
        where = f" on device{'s' * (len(devices) > 1)} {named}" if devices else ""
        clip = f"lower learn.clip ({learn.clip:g})" if learn.clip else "set learn.clip (it is off)"
        kept = f"; {self.folder.path} keeps the rounds before it" if number else ""
        return DivergedError(
            f"round {number + 1} of {learn.rounds} diverged{where}: {reason}; lower learn.lr ({learn.lr:g}) or {clip} "
            f"and start a new run{kept}"
        )


def start(job: Job, folder: str | Path | None = None, *, around: Around | None = None) -> Run:
    """Assemble a job and make its folder (``runs/data-model-method-N`` by default).

    Args:
        job: what is asked for.
        folder: where the run is written.
        around: returns a fleet of one's own around the job's, as a :class:`sflam.FleetAround` is.

    Raises:
        SflamError: anything a user can mend; nothing is left half-written.
    """
    if folder is not None:
        RunFolder(Path(folder)).expect_free()  # before minutes of loading
    job, told = follow(job)
    assembly = _assembled(job, around)
    assembly = replace(assembly, notes=(*told, *assembly.notes))
    fleet = _fleet(assembly)  # before anything is written
    run = RunFolder(default_folder(job) if folder is None else Path(folder))
    run.create(job)
    return _begin(assembly, fleet, run)


def resume(folder: str | Path, *, around: Around | None = None) -> Run:
    """Go on with the run in ``folder`` from its newest checkpoint; a finished run is finished again.

    Args:
        folder: of the run.
        around: as given to :func:`start`.

    Raises:
        RunError: the folder holds no run, a damaged one, one of another fleet, or one whose configuration was changed;
            it is then as before.
    """
    run = RunFolder(Path(folder))
    job = run.read_job()
    saved = checkpoint.load(run.checkpoints)
    records: list[RoundRecord] = []
    if saved is not None or run.history.exists():
        header, records = history.read(run.history)
        _expect_same(run, header, job)
    if saved is None:
        return _begin_again(run, job, len(records), around)
    rounds = saved.get("round")
    if not isinstance(rounds, int):
        raise _misfit(run, "it counts no rounds")
    if len(records) < rounds:
        raise RunError(
            f"{run.history} holds {len(records)} of the {rounds} rounds its checkpoint has done; the folder is "
            "damaged, start a new run"
        )
    assembly = _assembled(job, around)
    history.expect_charges(run.history, records, job.fleet.devices, assembly.backbone.depth)
    fleet = _fleet(assembly)
    state, best = _restored(assembly, fleet, run, saved, records[:rounds])
    return Run(assembly, run, state, history.rewind(run.history, rounds), best, fleet)


def train(
    job: Job, folder: str | Path | None = None, *, merge: bool = False, around: Around | None = None
) -> Result:
    """Run a job from start to finish and return its result; see :func:`start`."""
    run = start(job, folder, around=around)
    for _ in run.rounds():
        pass
    return run.finish(merge=merge)


def _begin_again(run: RunFolder, job: Job, done: int, around: Around | None) -> Run:
    """Begin a run anew that has no checkpoint: the first one is written before any round, the second after round 1."""
    if done > 1:
        raise RunError(
            f"{run.checkpoints} holds no checkpoint of the {done} rounds in {run.history}; put the newest one back, or "
            "start a new run"
        )
    assembly = _assembled(job, around)
    run.history.unlink(missing_ok=True)
    return _begin(assembly, _fleet(assembly), run)


def _assembled(job: Job, around: Around | None) -> Assembly:
    """Assemble a job, with a fleet of the user's own around its fleet where one is given."""
    assembly = assemble(job)
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
    numbers = trained_numbers(assembly.state, job.learn.aggregation)
    return simulated(job, assembly.fleet, assembly.halves, assembly.parts, assembly.splits.train, numbers)


def _begin(assembly: Assembly, fleet: Fleet, run: RunFolder) -> Run:
    with History(run.history) as log:
        log.start(asdict(assembly.job), assembly.job.seed)
    _checkpoint(run, 0, assembly.state, fleet)
    return Run(assembly, run, assembly.state, [], fleet=fleet)


def _checkpoint(
    run: RunFolder, rounds: int, state: State, fleet: Fleet, best: BestRound | None = None
) -> None:
    kept = {"best": best.stored()} if best else {}
    saved = {"round": rounds, "adapters": state, "fleet": fleet.state(), "fleet_name": fleet.name}
    checkpoint.save(run.checkpoints, saved | kept)


def _expect_same(run: RunFolder, header: Mapping[str, Any], job: Job) -> None:
    """Raise RunError when ``job`` is not the one the run was started with, which its history remembers."""
    before = header.get("config")
    changed = changes(job, before) if isinstance(before, dict) else {}
    said = [f"{name} = {json.dumps(was)}" for name, (was, _) in changed.items() if name not in CHANGEABLE]
    if said:
        raise RunError(
            f"{run.config} was changed since the run began with {', '.join(said)}; put that back, or start a new run"
        )


def _restored(
    assembly: Assembly, fleet: Fleet, run: RunFolder, saved: Mapping[Any, Any], records: list[RoundRecord]
) -> tuple[State, BestRound | None]:
    """Put the fleet back as ``saved`` says; return its adapters and the best so far, where that is kept.

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
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _misfit(run, str(error)) from error


def _misfit(run: RunFolder, reason: str) -> RunError:
    return RunError(
        f"the newest checkpoint in {run.checkpoints} is not of this run ({reason}); put the right one back, or start a "
        "new run"
    )
