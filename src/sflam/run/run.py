"""A run under way: its rounds, one after another, each on disk before the next, and its end."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from sflam.config import Job
from sflam.errors import DivergedError, NotFiniteError, QuantizerError, RanksError, RunError, WireError
from sflam.learn import checkpoint
from sflam.learn.best import BestRound, best_of, stopped
from sflam.learn.fleet import Fleet
from sflam.learn.round import train as train_rounds
from sflam.locks import Hold
from sflam.model.adapters import State
from sflam.records.history import History, RoundRecord
from sflam.records.run_folder import RunFolder
from sflam.report.charts.curves import draw_curves
from sflam.report.notebook import frame, picture, round_rows
from sflam.report.tensorboard import Events
from sflam.run.assemble import Assembly
from sflam.run.finish import Result, finish
from sflam.run.protection import AccountedFleet
from sflam.simulate.setup import deepest_placements


class Run:
    """A run under way: iterate :meth:`rounds`, then :meth:`finish`.

    Attributes:
        assembly: its pieces.
        folder: where it is written.
        records: the rounds done so far.
        best: the best of them by validation score, with ``learn.keep = "best"``.
        fleet: trains; that of the assembly, on a virtual clock where a network is simulated.
        kept: how many checkpoints are kept, the newest.
    """

    kept = checkpoint.KEPT

    def __init__(
        self,
        assembly: Assembly,
        folder: RunFolder,
        state: State,
        records: list[RoundRecord],
        best: BestRound | None = None,
        fleet: Fleet | None = None,
        held: Hold | None = None,
    ) -> None:
        self.assembly, self.folder, self._held = assembly, folder, held
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

        They end before ``learn.rounds`` where ``learn.stop_after`` says so, which the records alone decide: a run that
        has stopped is finished, also when it is resumed.

        Raises:
            DivergedError: a round diverged; it is not kept.
            RunError: the folder cannot be written any more.
        """
        job, rounds = self.job, 0 if self.stopped else self.job.learn.rounds
        left = range(len(self.records), rounds)
        how = self.assembly.evaluate, left, job.learn.evaluate_every, self.assembly.part
        with History(self.folder.history) as log, Events(self.folder.path, done=self.records) as events:
            with self._divergence():
                for record, state in train_rounds(self._accounted(), self.state, *how):
                    self._expect_finite(record, state)
                    # The history first: a crash between the two repeats the round, and the rewind forgets its line.
                    log.append(record)
                    if job.learn.keep == "best":
                        self.best = best_of(self.best, record, state, self.assembly.backbone.task)
                    self.state = state
                    self.records.append(record)
                    self.save()
                    events.add(record)
                    yield record
                    if self.stopped:
                        return

    @property
    def stopped(self) -> bool:
        """Whether the rounds done are all that ``learn.stop_after`` lets the run have."""
        return stopped(self.records, self.job.learn.stop_after, self.assembly.backbone.task)

    def _accounted(self) -> Fleet:
        """Return the fleet; where its devices add noise, one that counts what they give away."""
        if not self.job.privacy.promises:
            return self.fleet
        return AccountedFleet(self.fleet, self.assembly, self.records)

    def save(self) -> None:
        """Write a checkpoint of the rounds done."""
        kept = {"best": self.best.stored()} if self.best else {}
        fleet = {"fleet": self.fleet.state(), "fleet_name": self.fleet.name}
        checkpoint.save(
            self.folder.checkpoints,
            {"round": len(self.records), "adapters": self.state} | fleet | kept,
            keep=self.kept,
        )

    def to_frame(self) -> Any:
        """Return a row per round: a pandas DataFrame, or name -> array where pandas is not installed."""
        return frame(round_rows(self.records))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: where it is, and its curves."""
        done = f"round {len(self.records)} of {self.job.learn.rounds}, in {self.folder.path}"
        drawn = picture(draw_curves(self.records, method=self.job.learn.method)) if self.records else ""
        return f"<p>{html.escape(done)}</p>{drawn}"

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
        if merge and self.assembly.backbone.elsewhere:
            raise RunError(
                f'model.trunk_weights = "{self.job.model.trunk_weights}" leaves weights where they are, and merging '
                f"changes them; finish the run without merging (sflam train --resume {self.folder.path}) and merge its "
                "adapter with peft on a machine that holds the model"
            )
        if merge and self.job.learn.personal != "none":
            raise RunError(
                f'learn.personal = "{self.job.learn.personal}" leaves no one model to merge; finish the run without '
                f"merging (sflam train --resume {self.folder.path}) and load its adapter with the parts of a device"
            )
        try:
            self.folder.forget_result()
            assembly = self.assembly
            if deepest := deepest_placements(self.job, self.records):
                self.fleet.place(deepest)
                assembly = assembly.refitted()
            kept = self.best or BestRound(self.records[-1], self.state)
            result = finish(assembly, self.folder, kept, self.records, merge)
            if self._held:
                self._held.release()
            return result
        except RanksError as error:
            raise self._gone(error) from None
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"run folder {self.folder.path} cannot be written ({error}); make room, then finish the run with "
                f"sflam train --resume {self.folder.path}"
            ) from error

    @contextmanager
    def _divergence(self) -> Iterator[None]:
        """Raise DivergedError where what is not finite was about to cross the cut, or name a rank that is gone."""
        try:
            yield
        except RanksError as error:
            raise self._gone(error) from None
        except (QuantizerError, WireError) as error:
            if not (isinstance(error, NotFiniteError) or self.fleet.diverged()):
                raise  # for example a body too large, or what a user's own quantizer refuses
            raise self._diverged(len(self.records), str(error).partition(";")[0]) from error

    def _expect_finite(self, record: RoundRecord, state: State) -> None:
        """Raise DivergedError for a round that ends in NaN or infinity."""
        # Every adapter has a part in the loss of an evaluation, so one that is not finite shows in it.
        if record.evaluated_loss is None and not all(tensor.isfinite().all() for tensor in state.values()):
            raise self._diverged(record.round, "its adapters hold NaN or infinity")
        for name, value in (("training loss", record.loss), (f"{record.part} loss", record.evaluated_loss)):
            if value is not None and not math.isfinite(value):
                raise self._diverged(record.round, f"its {name} is {value}")

    def _gone(self, error: RanksError) -> RanksError:
        kept = f"{len(self.records)} rounds are kept, go on with: sflam train --resume {self.folder.path}"
        return RanksError(f"{error}; {kept} (with any number of ranks)", error.ended)

    def _diverged(self, number: int, reason: str) -> DivergedError:
        learn, devices = self.job.learn, self.fleet.diverged()
        named = ", ".join(map(str, devices[:5])) + (", ..." if len(devices) > 5 else "")
        where = f" on device{'s' * (len(devices) > 1)} {named}" if devices else ""
        clip = f"lower learn.clip ({learn.clip:g})" if learn.clip else "set learn.clip (it is off)"
        kept = f"; {self.folder.path} keeps the rounds before it" if number else ""
        return DivergedError(
            f"round {number + 1} of {learn.rounds} diverged{where}: {reason}; lower learn.lr "
            f"({learn.practice.lr:g}) or {clip} and start a new run{kept}"
        )
