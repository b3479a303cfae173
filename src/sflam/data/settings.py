"""``[data]``: what is loaded, what is held out, and how the rest is divided. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges
from sflam.registry import OWN

SAMPLINGS = ("", "local", "global")
PASSES, POISSON = DRAWS = ("passes", "poisson")
PARTITIONS = ("iid", "dirichlet", "shards", "quantity", "column", "file", "clusters")
VALIDATION = 0.1
"""The share held out for validation where something is chosen by its score and no share is given."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which samples there are, and which device holds which.

    Attributes:
        name: a named dataset (``digits``), the path of a ``.npz``, ``.parquet``, ``.csv`` or ``.jsonl`` file or of a
            folder of such files or of images, or a hub name.
        config: which configuration of a hub dataset, where it has several.
        partition: ``dirichlet`` gives every device its own class mix; ``shards`` a few classes; ``iid`` the same mix;
            ``quantity`` the same mix but unequal sizes; ``column`` whole groups of a column; ``file`` what a file
            lists; ``clusters`` its own mix of clusters of like samples, labels or not.
        alpha: concentration of the Dirichlet draw (``dirichlet``, ``quantity``, ``clusters``): 0.1 is very skewed, 100
            is nearly IID.
        shards: pieces of the samples sorted by class that each device holds, with ``shards``.
        column: array or column that says whose a sample is, with ``column``: a writer, a hospital. For a folder of
            images a column of its ``metadata.csv``.
        indices: a ``.json`` or ``.npz`` file with a list of the source's rows for each device, with ``file``.
        clusters: how many clusters the samples make, with ``clusters``.
        minimum: fewest samples a device may hold.
        sampling: ``local`` gives every device mini-batches of ``learn.batch``; ``global`` gives every step
            ``learn.batch`` rows per device of the round, a uniform sample of all their samples: each device has the
            share that falls to it, perhaps none. Empty takes the method's own: ``global`` of ``sflam-mixed``, ``local``
            of every other, and of every method with Poisson draws.
        draw: ``passes`` takes every sample once before any comes again; ``poisson`` lets every sample of a device join
            every step on its own, with rate ``learn.batch`` / n: mini-batches vary in size, perhaps to none, and losses
            count rows over ``learn.batch``.
        noise: variance of the Gaussian noise on the pixels (0..1) of the last device; device k of K has k/K of it.
        brightness: added to the pixels (0..1) of the last device; taken off those of the first, and in even steps in
            between: device k of K has (2 k - K - 1) / (K - 1) of it.
        contrast: the same share of it stretches the pixels' distance from middle grey, by 1 + contrast at the last
            device and 1 - contrast at the first.
        rotation: degrees by which the images of the last device are turned, counter-clockwise; the same share of it at
            the others.
        flipped: share of the labels of ``flipped_devices`` that are changed to another class; test and validation
            labels never are.
        flipped_devices: indices of the devices whose labels are flipped.
        test: share of the samples held out for testing, equal in every class; unused where the data comes with a test
            part.
        validation: share of the training samples held out for validation, equal in every class: rounds and rates are
            chosen by its score, never by that of the test part. 0 holds none out, or a tenth where ``learn.keep`` or
            ``learn.stop_after`` needs one. Unused where the data comes with a validation part.
        input: array or column that holds the inputs; empty guesses, and a note names the guess.
        label: array or column that holds the labels; empty trains a language model on texts alone.
        answer: column that holds the answers to the prompts in ``input``: a language model learns the answers alone,
            each ended by the tokenizer's end of text. It needs ``label = ""``; empty learns whole texts.
        max_tokens: texts are cut after so many tokens; 0 is the model's own limit.
        buckets: make mini-batches of texts of similar length, so that less is padded.
    """

    name: str = "digits"
    config: str = ""
    partition: str = "dirichlet"
    alpha: float = 0.5
    shards: int = 2
    column: str = ""
    indices: str = ""
    clusters: int = 10
    minimum: int = 2
    sampling: str = ""
    draw: str = PASSES
    noise: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    rotation: float = 0.0
    flipped: float = 0.0
    flipped_devices: tuple[int, ...] = (0,)
    test: float = 0.2
    validation: float = 0.0
    input: str = ""
    label: str = "label"
    answer: str = ""
    max_tokens: int = 128
    buckets: bool = False

    def __post_init__(self) -> None:
        ranges = Ranges(self, "data")
        ranges.require(bool(self.name), "name", "give a named dataset (digits), a path, or a hub name")
        ranges.one_of(SAMPLINGS, "sampling")
        ranges.one_of(DRAWS, "draw")
        ranges.require(
            self.draw == PASSES or self.sampling != "global",
            "draw",
            'a step of the fleet is drawn without replacement: set data.sampling = "local", or data.draw = "passes"',
        )
        ranges.one_of((*PARTITIONS, *sorted(OWN["partition"])), "partition")
        ranges.at_least(2, "clusters")
        ranges.at_least(0, "noise", hint=" (0.1 is common)")
        ranges.between(0, 1, "flipped", "brightness", "contrast")
        ranges.between(0, 180, "rotation")
        named = self.flipped_devices
        ranges.require(
            bool(named) and min(named) >= 0 and len(set(named)) == len(named),
            "flipped_devices",
            "list indices of devices, each once",
        )
        ranges.require(
            not (self.answer and self.label),
            "answer",
            'answers are learnt by a language model, which has no classes: set data.label = ""',
        )
        ranges.positive("alpha", hint=" (0.5 is a common skew)")
        ranges.at_least(1, "minimum", "shards", hint=" for every device")
        ranges.require(0 < self.test < 1, "test", "it must be in (0, 1), for example 0.2")
        ranges.require(
            0 <= self.validation < 1, "validation", "it must be in [0, 1), for example 0.1; 0 holds none out"
        )
        ranges.require(
            self.max_tokens == 0 or self.max_tokens >= 2,
            "max_tokens",
            "it must be 2 or more, or 0: the model's limit",
        )
        ranges.check()
