"""What a finished run leaves: the adapter with its card, the picture, and, last, the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from safetensors.torch import save_file

from sflam.learn.aggregate import trained_numbers
from sflam.learn.best import BestRound, stopped
from sflam.learn.evaluate import Score, perplexity
from sflam.learn.methods import method_of
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import load_state, save
from sflam.model.families import CAUSAL
from sflam.records.history import TEST, RoundRecord
from sflam.records.run_folder import RunFolder
from sflam.report import model_card as card
from sflam.report.charts import figure
from sflam.report.charts.curves import draw_curves
from sflam.report.charts.partition import draw_partition
from sflam.report.notebook import html_table
from sflam.report.terminal.loop_lines import both_times, evaluating_share, planning_share
from sflam.report.totals import totals
from sflam.run.assemble import Assembly, save_merged
from sflam.run.partition import partition_of
from sflam.run.protection import uncovered
from sflam.simulate.work import device_flop


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a finished run; ``--json`` prints exactly this.

    Attributes:
        accuracy: test accuracy of the kept model, in [0, 1]; of tokens, for a language model. Where there is a
            validation part, this is the only time the test part was looked at.
        loss: its mean test loss, the cross-entropy whatever ``learn.loss`` is.
        metric: what ``learn.metric`` makes of the same predictions; None where that is the accuracy.
        perplexity: exp(loss) for a language model, else None.
        validation_accuracy: its accuracy on the validation part; None without one.
        validation_loss: its mean loss on it.
        rounds: rounds run.
        stopped_round: the round, counted from 1, after which ``learn.stop_after`` ended the run; None where it ran to
            its end.
        kept_round: the round, counted from 1, whose model was written; see ``learn.keep``.
        samples: training samples used, over all rounds.
        bytes_up: bytes of all bodies devices sent: activations, labels, adapters.
        bytes_down: bytes of all bodies they received: gradients, adapters, corrections.
        payload_overhead: bytes of the step bodies over those of their packed codes alone, minus one.
        trainable_parameters: numbers trained: adapters of both sides and a new head.
        bytes_saved: packed codes that did not travel because the server keeps them (``learn.cache``).
        device_accuracy: per device, the accuracy to expect on data with its mix of classes; empty without classes.
        worst_device_accuracy: the least of them; None without classes.
        worst_device_loss: the largest mean training loss of a device in the last round; None where samples are pooled.
        worst_device_perplexity: exp of that loss for a language model that minimises the cross-entropy, else None.
        device_parameters: numbers the largest device half holds, frozen and trained.
        device_memory: estimated bytes of the device that keeps most blocks: weights, training, activations; None for
            ``central``.
        server_memory: estimated bytes of the server.
        device_flop: FLOP a device computed in the run by the cost model, the mean over all devices; None for
            ``central`` and for models that cannot be measured.
        aggregation_error: that of the last round, None where factors are not averaged apart.
        seconds: time in rounds, in s.
        virtual_s: time of the rounds on the virtual clock, in s; None where no network was simulated.
        energy_j: joules of every kind by the model of the network; None where none was simulated.
        sensitivity: chi of every participant of the last round, measured or given; empty where neither is wanted.
        sensitivity_error: half the widths of their 95 % confidence intervals; empty where chi was not measured.
        modelled_s: with ``network.calibrate``, T of all rounds as modelled; else None.
        calibrated_s: with it, T of all rounds as measured.
        evaluating_share: of the host's time in rounds, what evaluation took.
        planning_share: of the host's time, what planning took; None where no network was simulated.
        fleet: class of the fleet that trained; a wrapper of one's own is named here.
        run_dir: the run's folder.
    """

    method: str
    accuracy: float
    loss: float
    metric: float | None
    perplexity: float | None
    validation_accuracy: float | None
    validation_loss: float | None
    rounds: int
    stopped_round: int | None
    kept_round: int
    samples: int
    bytes_up: int
    bytes_down: int
    payload_overhead: float
    trainable_parameters: int
    device_parameters: int
    device_memory: int | None
    server_memory: int
    device_flop: float | None
    aggregation_error: float | None
    bytes_saved: int
    device_accuracy: tuple[float, ...]
    worst_device_accuracy: float | None
    worst_device_loss: float | None
    worst_device_perplexity: float | None
    seconds: float
    virtual_s: float | None
    energy_j: float | None
    sensitivity: tuple[float, ...]
    sensitivity_error: tuple[float, ...]
    modelled_s: float | None
    calibrated_s: float | None
    evaluating_share: float
    planning_share: float | None
    fleet: str
    run_dir: str
    classes: tuple[str, ...]

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the numbers that are known."""
        known = {name: value for name, value in asdict(self).items() if type(value) in (int, float, str)}
        rows = [
            (name, f"{value:.5g}" if isinstance(value, float) else value) for name, value in known.items()
        ]
        return html_table((), rows)


def finish(
    assembly: Assembly, run: RunFolder, kept: BestRound, records: list[RoundRecord], merge: bool
) -> Result:
    """Write adapter, card, picture and, last, the result of a run whose rounds are done; raises OSError."""
    state, last = kept.state, kept.record
    job, sums = assembly.job, totals(records)
    validation, score = scores(assembly, kept)
    load_state(assembly.model, state)
    exact = job.learn.practice.aggregation == "residual" and assembly.halves is not None
    whole = job.model.trainable == "full"
    if not (exact or whole):  # a corrected base is not the one an adapter alone would be loaded on
        run.adapter.mkdir(exist_ok=True)
        save(assembly.model, run.adapter)
        (run.adapter / "README.md").write_text(
            card.card(
                job,
                records,
                task=assembly.backbone.task,
                load_base=_loading(assembly),
                cut=method_of(job).split,
                quantized=method_of(job).quantized,
                data=assembly.splits.train.name,
                column=assembly.splits.train.column,
                classes=assembly.splits.train.classes,
                accuracy=score.accuracy,
                uncovered=uncovered(assembly),
            ),
            encoding="utf-8",
        )
    for device, parts in assembly.fleet.own_parts().items():
        run.personal.mkdir(exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in parts.items()}, run.own_part(device))
    devices = device_accuracy(assembly, score.per_class, score.per_device)
    drawn = draw_curves(records, title=run.path.name, method=job.learn.method, devices=devices)
    figure.save(drawn, run.curves)
    figure.save(draw_partition(partition_of(assembly), title=run.path.name), run.partition_picture)
    steps = sum(record.bytes_up + record.bytes_down for record in records)
    codes = sum(record.code_bytes for record in records)
    charge = records[-1].charge
    loss = max((loss for loss in records[-1].device_loss if loss is not None), default=None)
    per_token = assembly.backbone.task == CAUSAL and job.learn.loss == LearnSettings.loss
    modelled_s, calibrated_s = both_times(records)
    result = Result(
        method=job.learn.method,
        accuracy=score.accuracy,
        loss=score.loss,
        metric=score.metric,
        perplexity=perplexity(score.loss) if assembly.backbone.task == CAUSAL else None,
        validation_accuracy=validation.accuracy if validation else None,
        validation_loss=validation.loss if validation else None,
        rounds=len(records),
        stopped_round=len(records) if ended_early(assembly, records) else None,
        kept_round=last.round + 1,
        samples=sums.samples,
        bytes_up=sum(record.bytes_up + record.adapter_bytes_up for record in records),
        bytes_down=sum(r.bytes_down + r.adapter_bytes_down + r.residual_bytes for r in records),
        payload_overhead=steps / codes - 1 if codes else 0.0,
        trainable_parameters=trained_numbers(state, job.learn.practice.aggregation),
        device_parameters=_device_parameters(assembly),
        device_memory=None if assembly.fit.device is None else assembly.fit.device.total,
        server_memory=assembly.fit.server.total,
        device_flop=device_flop(job, assembly.parts, assembly.splits.train, records),
        aggregation_error=records[-1].aggregation_error,
        bytes_saved=sum(record.saved_bytes for record in records),
        device_accuracy=devices,
        worst_device_accuracy=min((share for share in devices if not math.isnan(share)), default=None),
        worst_device_loss=loss,
        worst_device_perplexity=perplexity(loss) if per_token and loss is not None else None,
        seconds=sums.seconds,
        virtual_s=sums.virtual_s,
        energy_j=sums.energy_j,
        sensitivity=() if charge is None else charge.sensitivity,
        sensitivity_error=() if charge is None else charge.sensitivity_error,
        modelled_s=modelled_s,
        calibrated_s=calibrated_s,
        evaluating_share=evaluating_share(records),
        planning_share=None if charge is None else planning_share(records),
        fleet=assembly.fleet.name,
        run_dir=str(run.path),
        classes=assembly.splits.train.classes,
    )
    if merge or exact or whole:
        save_merged(assembly, run.merged)
    run.write_result(asdict(result))
    return result


def scores(assembly: Assembly, kept: BestRound) -> tuple[Score | None, Score]:
    """Return how good the kept model is on the validation part, where there is one, and on the test part.

    What its round was evaluated on, all of a part, is not scored again; with a validation part the test part is scored
    here, once.
    """
    fleet, record = assembly.fleet, kept.record
    known = None
    if not assembly.samples and record.evaluated_loss is not None and record.evaluated_accuracy is not None:
        known = Score(
            record.evaluated_loss,
            record.evaluated_accuracy,
            per_class=record.class_accuracy,
            per_device=record.device_class_accuracy,
            metric=record.metric,
        )
    # Without a score the round was not the last when it ran.
    found = known or fleet.score(kept.state, assembly.whole)
    return (None, found) if assembly.part == TEST else (found, fleet.score(kept.state, assembly.test))


def ended_early(assembly: Assembly, records: Sequence[RoundRecord]) -> bool:
    """Return whether a run had rounds left when ``learn.stop_after`` ended it."""
    learn, task = assembly.job.learn, assembly.backbone.task
    return len(records) < learn.rounds and stopped(records, learn.stop_after, task)


def device_accuracy(
    assembly: Assembly,
    per_class: Sequence[float | None],
    per_device: Sequence[Sequence[float | None]] = (),
) -> tuple[float, ...]:
    """Return for each device the accuracy to expect on data like its own: that of each class, weighted by its mix.

    Classes of which there is no test sample count for no device. Empty where there are no classes.

    Args:
        assembly: of the run.
        per_class: share of each class that is predicted right.
        per_device: the same of each device's own model, where they have one.
    """
    found = []
    for device, part in enumerate(assembly.parts if len(per_class) else ()):
        shares = per_device[device] if per_device else per_class
        known = np.array([share is not None for share in shares], bool)
        right = np.array([share or 0.0 for share in shares])
        mix = np.bincount(assembly.splits.train.labels[part], minlength=len(right)) * known
        found.append(float(mix @ right / mix.sum()) if mix.sum() else float("nan"))
    return tuple(found)


def _device_parameters(assembly: Assembly) -> int:
    if assembly.halves is None:
        return sum(parameter.numel() for parameter in assembly.model.parameters())
    return assembly.halves.numbers()


def _loading(assembly: Assembly) -> str:
    """Return the Python lines that build the base model."""
    architecture, classes = assembly.backbone.head.architecture, len(assembly.splits.train.classes)
    name = assembly.job.model.name
    public = card.public_name(name)
    source = (
        f"sflam.model_folder({name!r})"
        if name == "nano-vit"
        else repr(f"path/to/{public}" if public != name else name)
    )
    first = "import sflam\n" if name == "nano-vit" else ""
    labels = "" if assembly.backbone.task == CAUSAL else f", num_labels={classes}"
    return f"{first}from transformers import {architecture}\n\nbase = {architecture}.from_pretrained({source}{labels})"
