"""From a job to the pieces of a run: data, model, fleet, evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers.utils.hub import cached_file

from sflam.config import Job, overrides
from sflam.cost.lean_device import lean_of
from sflam.data.dataset import Dataset, Splits
from sflam.data.holdout import sampled
from sflam.data.images import PREPROCESSOR, ImageSpec
from sflam.data.partition import Shared, share_out
from sflam.data.preprocessor import Preprocessor
from sflam.data.sources import load as load_data
from sflam.errors import ConfigError, DataError
from sflam.learn.evaluate import ROWS, Score, evaluate
from sflam.learn.examples import Examples
from sflam.learn.fit import Fit, fit
from sflam.learn.fleet import Fleet
from sflam.learn.methods import Material, method_of
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.world.fleet import ORDER, RankedFleet
from sflam.learn.world.world import ALONE, World
from sflam.model.adapters import State, attach, load_state, state_of
from sflam.model.backbone import Backbone, locate, quiet, read_config
from sflam.model.compact import round_device_half
from sflam.model.families import CAUSAL, IMAGE
from sflam.model.structure import family_of
from sflam.model.tokenizer import Tokenizer
from sflam.model.verify import expect_equal
from sflam.records.history import TEST, VALIDATION
from sflam.run.compatibility import check
from sflam.run.conditions import SERVE
from sflam.run.job_model import backbone_of, torch_device
from sflam.run.measured_passes import with_measured_passes
from sflam.run.ranks_check import check_lenders, check_ranks
from sflam.seeds import generator


@dataclass(frozen=True)
class Assembly:
    """A run ready to start.

    Attributes:
        job: what was asked for.
        splits: training, validation and test samples.
        backbone: the model, adapted by ``model``.
        model: its peft wrapper, which evaluation uses.
        fleet: how the devices are reached.
        halves: the devices and the server of a cut model in this process, beneath whatever wraps them; else None.
        fit: the memory it will need.
        state: the global adapters at the start.
        shared: the training samples as the devices hold them; ``splits`` has them as the source does.
        notes: sentences for the user about what was guessed or decided on the way.
        between: called between the batches of an evaluation; what it raises ends it.
        world: the ranks that train together.
    """

    job: Job
    splits: Splits
    backbone: Backbone
    model: PeftModel
    fleet: Fleet
    halves: LocalFleet | None
    fit: Fit
    state: State
    shared: Shared
    notes: tuple[str, ...]
    between: Callable[[], None] = lambda: None
    world: World = ALONE

    @property
    def parts(self) -> tuple[NDArray[np.int64], ...]:
        """The training samples of each device, int64 [n_k]."""
        return self.shared.parts

    def refitted(self) -> Assembly:
        """Return the pieces with the memory that the fleet needs where its devices are now."""
        examples = examples_of(self.splits.train, self.backbone)
        return replace(
            self, fit=_fit(self.job, self.splits.train, examples, self.backbone, self.halves or self.fleet)
        )

    def evaluate(self, state: State) -> Score:
        """Return how well the whole model does after a round with the global adapters ``state``.

        On :attr:`part`, or on ``learn.evaluate_samples`` of it.
        """
        return self._asked("_of_rounds", state)

    def whole(self, state: State) -> Score:
        """Return how well the whole model does with the global adapters ``state`` on all samples of :attr:`part`."""
        return self.evaluate(state) if not self.samples else self._asked("_of_part", state)

    def test(self, state: State) -> Score:
        """Return how well the whole model does on the test samples with the global adapters ``state``."""
        return self._asked("_of_test", state)

    def _asked(self, which: str, state: State) -> Score:
        self.world.first({ORDER: "scored", "which": which, "state": state})
        return self.scored(which, state)

    def scored(self, which: str, state: State) -> Score:
        """Return how well the global adapters ``state`` do on samples of one kind; every rank calls it at once."""
        return self._score(state, getattr(self, which))

    def _score(self, state: State, examples: Examples) -> Score:
        load_state(self.model, state)
        learn = self.job.learn
        # Canonical passes are those of one process; any others are as many for every rank.
        rows = ROWS if learn.canonical else min(ROWS, -(-len(examples) // self.world.size))
        return evaluate(
            self.model, examples, metric=learn.metric, rows=rows, between=self.between, world=self.world
        )

    @property
    def samples(self) -> int:
        """How many samples of :attr:`part` rounds are evaluated on, where that is not all of them; else 0."""
        wanted = self.job.learn.evaluate_samples
        return wanted if wanted < len(self._part) else 0

    @property
    def _part(self) -> Dataset:
        return self.splits.test if self.splits.validation is None else self.splits.validation

    @cached_property
    def _of_rounds(self) -> Examples:
        """What rounds are evaluated on, made ready once."""
        if not self.samples:
            return self._examples_of(self._part)
        drawn = sampled(self._part.labels, self.samples, generator(self.job.seed, "evaluation"))
        return self._examples_of(self._part.take(drawn))

    @property
    def _of_part(self) -> Examples:
        return self._examples_of(self._part)

    @property
    def _of_test(self) -> Examples:
        return self._examples_of(self.splits.test)

    def _examples_of(self, dataset: Dataset) -> Examples:
        return examples_of(dataset, self.backbone)

    @property
    def part(self) -> str:
        """The part of the data that rounds are evaluated on: ``validation`` where there is one, else ``test``."""
        return TEST if self.splits.validation is None else VALIDATION


def assemble(job: Job, world: World = ALONE, command: str = "") -> Assembly:
    """Load the data and the model of a job, cut the model, and share the data out.

    Args:
        job: what is asked for.
        world: the ranks that train together, all of which assemble the job. Beside a server they lend memory alone.
        command: that runs it, see :func:`sflam.run.compatibility.check`.

    Raises:
        SflamError: whatever cannot be loaded, cut, shared or run; nothing has been written then.
    """
    check(job, command)  # before anything is loaded
    if world is not ALONE and command == SERVE:
        check_lenders(job)
        return assembled(job, lenders=world)
    if world is not ALONE:
        check_ranks(job, world.size)
    world.first({ORDER: "assemble", "job": overrides(job)})
    found = assembled(job, world)
    if command != SERVE:  # else devices hold their own
        _expect_counts(job, found.parts)
    return found


def _expect_counts(job: Job, parts: Sequence[NDArray[np.int64]]) -> None:
    """Raise ConfigError where a device has more samples than ``fleet.most_samples``."""
    most = job.fleet.most_samples
    device, count = max(enumerate(map(len, parts)), key=lambda each: each[1])
    if 0 < most < count:
        raise ConfigError(
            f"device {device} has {count} samples, and fleet.most_samples is {most}; raise it to {count}, or share out "
            "the samples more evenly (data.alpha, data.partition)"
        )


def assembled(job: Job, world: World = ALONE, lenders: World = ALONE) -> Assembly:
    """Return the pieces of a job that was checked, on one of the ranks, or with those that lend memory to this one."""
    device = torch_device(job.learn.device)
    if job.learn.canonical:
        torch.set_num_threads(1)
    splits = load_data(job.samples, job.seed, preprocessor_of(job))
    notes = [*splits.notes]
    shared = share_out(job.data, splits.train, job.fleet.devices, job.seed)
    notes += shared.notes
    classes = len(splits.train.classes)
    if lenders is not ALONE:
        lenders.first({ORDER: "lend", "job": overrides(job), "kind": splits.train.kind, "classes": classes})
        lenders.wait_long()
    backbone = backbone_of(job, splits.train, classes, world=world if lenders is ALONE else lenders)
    model = attach(backbone, job.model, seed=job.seed)
    method = method_of(job)
    if method.split:
        round_device_half(
            backbone, max(placement.cut for placement in job.placements), job.model.labels, job.device.weights
        )
    state = state_of(model)
    examples = examples_of(shared.train, backbone, buckets=job.data.buckets)
    if method.split and backbone.family.gates:
        found = expect_equal(backbone, model, sorted({placement.cut for placement in job.placements}))
        notes.append(
            f"model class {type(backbone.model).__name__} is in no known family; it was split by its structure at "
            f"{backbone.family.path}; checked against the unsplit model (largest difference {found:.0e})"
        )
    job, tried = with_measured_passes(job, backbone, model, examples)
    notes += tried
    material = Material(job, backbone, model, examples, shared.parts, world)
    halves = method.halves(material)
    fleet = halves or method.fleet(material)
    if job.model.dtype == "bfloat16" and device.type == "cpu":
        notes.append('bfloat16 is often far slower than float32 on a CPU; model.dtype = "float32" is safe')
    if splits.train.kind == "image" and not pixels_of(backbone.name).is_file():
        notes.append(
            f"model {backbone.name!r} has no {PREPROCESSOR}: pixels get mean and deviation 0.5, as for ViT"
        )
    if backbone.fresh:
        notes.append(f"the head {', '.join(backbone.fresh)} is newly initialised, so it is trained in full")
    needed = _fit(job, splits.train, examples, backbone, fleet)
    notes += needed.notes()
    if halves is not None and world is not ALONE and world.rank == 0:
        fleet = RankedFleet(halves, world)
    return Assembly(
        job, splits, backbone, model, fleet, halves, needed, state, shared, tuple(notes), world=world
    )


def _fit(job: Job, train: Dataset, examples: Examples, backbone: Backbone, fleet: Fleet) -> Fit:
    sample = examples.take(np.arange(1)).inputs
    tokens = 0 if train.lengths is None else int(train.lengths.max())
    lean = lean_of(job, method_of(job).scheme(job.quant))
    return fit(fleet, backbone, sample, tokens, job.learn, lean)


def preprocessor_of(job: Job) -> Preprocessor:
    """Return how the job's model wants raw texts and images; nothing of the model is loaded before it is asked."""
    name, tokenizer = job.model.name, Tokenizer(job.model.name)

    def encode(texts: list[str], limit: int) -> list[list[int]]:
        _expect_reader(name, "text")
        return tokenizer.encode(texts, limit)

    def answers(texts: list[str]) -> list[list[int]]:
        _expect_reader(name, "text")
        return tokenizer.answers(texts)

    def longest() -> int:
        _expect_reader(name, "text")
        return tokenizer.longest()

    def image() -> ImageSpec:
        config = _expect_reader(name, "image").to_dict()
        return ImageSpec.from_folder(pixels_of(name).parent, config)

    return Preprocessor(encode=encode, answers=answers, longest=longest, image=image)


def _expect_reader(name: str, kind: str) -> Any:
    """Return the config of a model that reads data of ``kind``; raises DataError for any other."""
    config = read_config(name)
    family = family_of(config.model_type)
    reads = "image" if IMAGE in family.tasks else "text"
    if reads != kind:
        raise DataError(
            f"the data holds {kind}s, but model {name!r} ({family.name}) reads {reads}s; choose other data, or another "
            "model.name"
        )
    return config


def examples_of(dataset: Dataset, backbone: Backbone, name: str = "", *, buckets: bool = False) -> Examples:
    """Bind a dataset to a model, with the preprocessing that the folder of the model ``name`` (its own) describes."""
    spec = None
    if dataset.kind == "image":
        spec = ImageSpec.from_folder(pixels_of(name or backbone.name).parent, backbone.model.config.to_dict())
    return Examples(dataset, backbone, spec, buckets=buckets)


def pixels_of(name: str) -> Path:
    """Return the file with the pixels a model expects, fetched from the hub if need be; it may not exist."""
    folder = Path(locate(name))
    if folder.is_dir():
        return folder / PREPROCESSOR
    with quiet():
        found = cached_file(
            name,
            PREPROCESSOR,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return Path(found) if found else folder / PREPROCESSOR


def save_merged(assembly: Assembly, folder: Path) -> None:
    """Write the model with its adapters merged in, for plain transformers; ``assembly`` cannot be used afterwards."""
    folder.mkdir(exist_ok=True)
    merged = assembly.model.merge_and_unload()
    if assembly.backbone.task != CAUSAL:
        classes = assembly.splits.train.classes
        merged.config.id2label = dict(enumerate(classes))
        merged.config.label2id = {name: index for index, name in enumerate(classes)}
    with quiet():
        merged.save_pretrained(str(folder))
    save_preprocessing(assembly, folder)


def save_preprocessing(assembly: Assembly, folder: Path) -> None:
    """Write what turns raw samples into the inputs of an assembly's model."""
    write_preprocessing(assembly.backbone.name, assembly.splits.train.kind, folder)


def write_preprocessing(model: str, kind: str, folder: Path) -> None:
    """Write what turns raw samples into a model's inputs: how pixels are scaled, or the tokenizer."""
    pixels = pixels_of(model)
    if pixels.is_file():
        shutil.copyfile(pixels, folder / PREPROCESSOR)
    if kind == "text":
        with suppress(DataError), quiet():  # token ids from an .npz need no tokenizer
            Tokenizer(model).loaded.save_pretrained(str(folder))
