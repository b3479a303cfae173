"""A run from its job to its folder: start it, resume it after a crash, finish it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sflam import history
from sflam.assembly import Assembly, assemble
from sflam.config import Job
from sflam.errors import RunError
from sflam.history import History, RoundRecord
from sflam.learn import checkpoint
from sflam.learn.fleet import Fleet
from sflam.learn.local import LocalFleet
from sflam.learn.round import train as train_rounds
from sflam.model.adapters import State, load_state, save
from sflam.report import card, curves
from sflam.report.events import Events
from sflam.report.totals import totals
from sflam.run_folder import RunFolder, default_folder


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished run says of itself; ``--json`` prints exactly this.

    Attributes:
        accuracy: test accuracy of the final model, in [0, 1].
        loss: its mean test loss.
        rounds: rounds run.
        samples: training samples used, over all rounds.
        bytes_up: bytes of all bodies devices sent: activations, labels, adapters.
        bytes_down: bytes of all bodies they received: gradients, adapters, corrections.
        payload_overhead: bytes of the step bodies over those of their packed codes alone, minus one.
        trainable_parameters: numbers trained: adapters of both sides and a new head.
        device_parameters: numbers the largest device half holds, frozen and trained.
        aggregation_error: that of the last round, None where factors are not averaged apart.
        seconds: time in rounds, in s.
        run_dir: the run's folder.
    """

    method: str
    accuracy: float
    loss: float
    rounds: int
    samples: int
    bytes_up: int
    bytes_down: int
    payload_overhead: float
    trainable_parameters: int
    device_parameters: int
    aggregation_error: float | None
    seconds: float
    run_dir: str
    classes: tuple[str, ...]


class Run:
    """A run under way: iterate :meth:`rounds`, then :meth:`finish`.

    Attributes:
        assembly: its pieces.
        folder: where it is written.
        records: the rounds done so far.
    """

    def __init__(
        self, assembly: Assembly, folder: RunFolder, state: State, records: list[RoundRecord]
    ) -> None:
        self.assembly, self.folder = assembly, folder
        self.state, self.records = state, records

    @property
    def job(self) -> Job:
        """What was asked for."""
        return self.assembly.job

    def rounds(self) -> Iterator[RoundRecord]:
        """Run the rounds not done yet; each is on disk, with a state to resume from, when it is yielded."""
        left = range(len(self.records), self.job.learn.rounds)
        fleet = self.assembly.fleet
        with History(self.folder.history) as log, Events(self.folder.path, done=left.start) as events:
            for record, state in train_rounds(fleet, self.state, self.assembly.score, left):
                # The history first: a crash between the two repeats the round, and the rewind forgets its line.
                log.append(record)
                _checkpoint(self.folder, record.round + 1, state, fleet)
                self.state = state
                self.records.append(record)
                events.add(record)
                yield record

    def finish(self, *, merge: bool = False) -> Result:
        """Write adapter, card, picture and result; ``merge`` also writes the merged model."""
        return _finish(self.assembly, self.folder, self.state, self.records, merge)


def start(job: Job, folder: Path | None = None) -> Run:
    """Assemble a job and make its folder (``runs/data-model-method-N`` by default).

    Raises:
        SflamError: anything a user can mend; nothing is left half-written.
    """
    assembly = assemble(job)
    run = RunFolder(folder or default_folder(job))
    run.create(job)
    return _begin(assembly, run)


def resume(folder: Path) -> Run:
    """Go on with the run in ``folder`` from its newest checkpoint; a finished run is finished again.

    Raises:
        RunError: the folder holds no run, or a damaged one.
    """
    run = RunFolder(folder)
    job = run.read_job()
    saved = checkpoint.load(run.checkpoints)
    assembly = assemble(job)
    if saved is None:  # killed before its first checkpoint: nothing is lost by beginning again
        run.history.unlink(missing_ok=True)
        return _begin(assembly, run)
    try:
        state = {name: saved["adapters"][name].to(tensor) for name, tensor in assembly.state.items()}
        assembly.fleet.restore(saved["fleet"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"the checkpoint in {run.checkpoints} does not fit {run.config} ({error!r})"
        ) from error
    records = history.rewind(run.history, saved["round"])
    if len(records) != saved["round"]:
        raise RunError(
            f"{run.history} holds {len(records)} of the {saved['round']} rounds its checkpoint has done; the folder is "
            "damaged, start a new run"
        )
    return Run(assembly, run, state, records)


def train(job: Job, folder: Path | None = None, *, merge: bool = False) -> Result:
    """Run a job from start to finish and return its result; see :func:`start`."""
    run = start(job, folder)
    for _ in run.rounds():
        pass
    return run.finish(merge=merge)


def _begin(assembly: Assembly, run: RunFolder) -> Run:
    with History(run.history) as log:
        log.start(asdict(assembly.job), assembly.job.seed)
    _checkpoint(run, 0, assembly.state, assembly.fleet)
    return Run(assembly, run, assembly.state, [])


def _checkpoint(run: RunFolder, rounds: int, state: State, fleet: Fleet) -> None:
    checkpoint.save(run.checkpoints, {"round": rounds, "adapters": state, "fleet": fleet.state()})


def _finish(
    assembly: Assembly, run: RunFolder, state: State, records: list[RoundRecord], merge: bool
) -> Result:
    """Write adapter, card, picture and result of a run whose rounds are done."""
    job, sums = assembly.job, totals(records)
    load_state(assembly.model, state)
    exact = job.learn.aggregation == "residual" and isinstance(assembly.fleet, LocalFleet)
    if not exact:  # a corrected base is not the one an adapter alone would be loaded on
        save(assembly.model, run.adapter)
        (run.adapter / "README.md").write_text(
            card.card(card.facts(job, records, task=assembly.backbone.task, load_base=_loading(assembly))),
            encoding="utf-8",
        )
    curves.draw(records, run.curves, title=run.path.name)
    last = records[-1]
    assert last.accuracy is not None and last.test_loss is not None
    steps = sum(record.bytes_up + record.bytes_down for record in records)
    codes = sum(record.code_bytes for record in records)
    result = Result(
        method=job.learn.method,
        accuracy=last.accuracy,
        loss=last.test_loss,
        rounds=len(records),
        samples=sums.samples,
        bytes_up=sum(record.bytes_up + record.adapter_bytes_up for record in records),
        bytes_down=sum(r.bytes_down + r.adapter_bytes_down + r.residual_bytes for r in records),
        payload_overhead=steps / codes - 1 if codes else 0.0,
        trainable_parameters=sum(tensor.numel() for tensor in state.values()),
        device_parameters=_device_parameters(assembly),
        aggregation_error=last.aggregation_error,
        seconds=sums.seconds,
        run_dir=str(run.path),
        classes=assembly.splits.train.classes,
    )
    if merge or exact:
        merged = assembly.model.merge_and_unload()
        merged.save_pretrained(str(run.merged))
    run.write_result(asdict(result))
    return result


def _device_parameters(assembly: Assembly) -> int:
    if not isinstance(assembly.fleet, LocalFleet):
        return sum(parameter.numel() for parameter in assembly.model.parameters())
    segment = assembly.fleet.devices.segment
    return sum(parameter.numel() for parameter in segment.parameters()) + segment.stack.size()


def _loading(assembly: Assembly) -> str:
    """Return the Python lines that build the base model."""
    architecture, classes = assembly.backbone.head.architecture, len(assembly.splits.train.classes)
    name = assembly.job.model.name
    source = f"sflam.model_folder({name!r})" if name == "nano-vit" else repr(name)
    first = "import sflam\n" if name == "nano-vit" else ""
    return (
        f"{first}from transformers import {architecture}\n\n"
        f"base = {architecture}.from_pretrained({source}, num_labels={classes})"
    )
