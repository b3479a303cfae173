"""Whole halves of real families in the page against the NumPy device: activations, gradients, masks and steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from sflam.data.dataset import Dataset
from sflam.data.images import ImageSpec
from sflam.device.engines import Engines
from sflam.device.half import Grouping, LeanHalf
from sflam.device.samples import OwnSamples
from sflam.device.weights import Weights
from sflam.graph.writing import write_bundle
from sflam.learn.settings import LearnSettings
from sflam.link.half import LocalStep
from tests.device import hand_made
from tests.device.test_half import In, Out
from tests.model.test_device_graphs import made
from tests.tiny import CLASSES, VOCABULARY, is_image
from tests.web.engine_process import NodeEngine, PageError, node_engine, text_of
from tests.web.node import needs_node

pytestmark = needs_node
page = pytest.fixture(node_engine, scope="module")

OPENED: list[Weights] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the files of the tensors."""
    yield
    while OPENED:
        OPENED.pop().close()


LEARN = LearnSettings(lr=0.01, optimizer="adamw", weight_decay=0.1, clip=0.5)
ROWS = np.array([4, 0, 11, 7, 2])
RATE = 0.01
STEPS = 5


@dataclass
class Pair:
    """The same half twice: in NumPy, and in the page under a name."""

    lean: LeanHalf
    page: NodeEngine
    name: str
    samples: OwnSamples
    graphs: bytes
    segment: bytes

    @property
    def tolerance(self) -> float:
        """AdamW makes a whole step of a gradient that is rounding alone, so that later steps differ more."""
        return 1e-5 if self.lean.learn.optimizer == "sgd" else 3e-4

    def rows(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """The rows of a step as the page takes them."""
        labels = self.samples.dataset.labels[indices].astype(np.int32)
        if self.samples.spec is None:
            return {
                "tokens": [self.samples.tokens(index)[0].tolist() for index in indices.tolist()],
                "labels": labels,
            }
        return {"pixels": self.samples.pixels(indices).reshape(-1), "labels": labels}

    def call(self, method: str, *given: Any) -> Any:
        return self.page.ask("call", name=self.name, method=method, given=given)["found"]

    def take(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        ours, theirs = self.lean.take(indices), self.call("take", self.rows(indices))
        for name, wanted in asdict(ours).items():
            np.testing.assert_array_equal(theirs[name], wanted)
        return theirs

    def forward(self, at: LocalStep) -> NDArray[Any]:
        out = Out()
        self.lean.forward(at, out)
        found = self.page.ask("forward", name=self.name, at=plain(at))["pieces"]
        hidden = np.concatenate(found).reshape(-1, self.lean.dim)
        close(hidden, out.all, self.tolerance)
        return out.all

    def finish(self, at: LocalStep, last: NDArray[Any]) -> NDArray[Any]:
        out = Out()
        loss = self.lean.finish(at, In(last), out)
        found = self.page.ask("finish", name=self.name, at=plain(at), last=last.reshape(-1))
        assert found["loss"] == pytest.approx(loss, rel=self.tolerance)
        close(found["gradient"].reshape(out.all.shape), out.all, self.tolerance)
        return out.all

    def backward(self, at: LocalStep, gradient: NDArray[Any] | None, pieces: bool) -> None:
        """Take a step on both sides; gradients are compared before AdamW makes signs of them."""
        kept: list[NDArray[Any]] = []
        step = self.lean._optimizer.step
        self.lean._optimizer.step = lambda values, sums, rate: (
            kept.append(sums.copy()),
            step(values, sums, rate),
        )  # type: ignore[assignment,func-returns-value,method-assign]
        self.lean.backward(at, None if gradient is None else In(gradient))
        self.lean._optimizer.step = step  # type: ignore[method-assign]
        sent = None if gradient is None else gradient.astype(np.float32).reshape(-1)
        pieces = pieces and sent is not None
        found = self.page.ask("backward", name=self.name, at=plain(at), gradient=sent, pieces=pieces)
        if kept and self.lean.learn.optimizer == "sgd" and not self.lean.learn.momentum:
            [wanted] = kept
            close(found["gradient"], wanted)
        close(found["values"], self.lean.values, self.tolerance)


def plain(at: LocalStep) -> dict[str, Any]:
    return {"seed": str(at.seed), "headSeed": str(at.head_seed), "rate": at.rate}


def step_of(number: int, rate: float = RATE) -> LocalStep:
    return LocalStep(0, number, (1 << 61) + 7 * number, 8 + number, rate)


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    assert found.shape == wanted.shape
    if wanted.size:
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max(), np.abs(found - wanted).max()


def samples_of(bundle: Any, image: bool) -> OwnSamples:
    draw = np.random.default_rng(5)
    labels = draw.integers(0, CLASSES, 13)
    classes = tuple("abcd")
    if image:
        images = draw.integers(0, 256, (13, 16, 16, 1)).astype(np.uint8)
        spec = ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,))
        return OwnSamples(Dataset("x", "image", images, None, labels, classes), np.arange(13), spec, False)
    lengths = draw.integers(2, 17, 13).astype(np.int32)
    ids = draw.integers(1, VOCABULARY, (13, 16))
    causal = bundle.task == "causal-lm"
    dataset = Dataset("x", "text", ids, lengths, labels, classes)
    return OwnSamples(dataset, np.arange(13), None, causal)


def pair_of(
    page: NodeEngine,
    folder: Path,
    kind: str,
    *,
    learn: LearnSettings = LEARN,
    rows: int | None = None,
    **more: Any,
) -> Pair:
    bundle, _, tensors = made(kind, 2, dtype=torch.float32, **more)
    safetensors.torch.save_file(tensors, folder / "segment.safetensors")
    return opened(page, folder, bundle, samples_of(bundle, is_image(kind)), learn, rows, kind)


def opened(
    page: NodeEngine,
    folder: Path,
    bundle: Any,
    samples: OwnSamples,
    learn: LearnSettings,
    rows: int | None,
    name: str,
) -> Pair:
    file = folder / "segment.safetensors"
    grouping = Grouping(rows or 4, keep_inputs=True)
    OPENED.append(Weights(file, keep=True))
    lean = LeanHalf(Engines(bundle), OPENED[-1], samples, learn, grouping)
    graphs, segment = write_bundle(bundle), file.read_bytes()
    more = {} if rows is None else {"rows": rows}
    given = {"graphs": text_of(graphs), "segment": text_of(segment), "learn": job_of(learn), **more}
    facts = page.ask("open", name=name, **given)
    assert facts["trained"] == lean.trained and facts["dim"] == lean.dim and facts["hasHead"] == lean.has_head
    pair = Pair(lean, page, name, samples, graphs, segment)
    values = np.random.default_rng(1).normal(size=lean.trained).astype(np.float32) / 50
    lean.write(values)
    lean.begin(values)
    pair.call("write", values)
    pair.call("begin", values)
    np.testing.assert_array_equal(pair.call("read"), lean.read())
    return pair


def job_of(learn: LearnSettings) -> dict[str, Any]:
    names = ("optimizer", "weight_decay", "momentum", "clip", "local", "prox")
    return {name: getattr(learn, name) for name in names}


SGD = LearnSettings(lr=0.01, optimizer="sgd", clip=0.0)
HALVES = [
    pytest.param("vit", "server", 0.1, id="vit"),
    pytest.param("bert", "server", 0.1, id="bert, ragged, dropout"),
    pytest.param("gpt2-lm", "device", 0.0, id="gpt2, labels at home"),
    pytest.param("llama", "device", 0.1, id="llama, labels at home", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("learn", [SGD, LEARN], ids=["gradients", "adamw"])
@pytest.mark.parametrize(("kind", "labels", "dropout"), HALVES)
def test_steps_are_the_numpy_devices(
    page: NodeEngine, tmp_path: Path, kind: str, labels: str, dropout: float, learn: LearnSettings
) -> None:
    pair = pair_of(page, tmp_path, kind, learn=learn, labels=labels, dropout=dropout)
    before, rate = pair.lean.read(), RATE if learn is LEARN else 1e-4
    for number in range(STEPS):
        at = step_of(number, rate)
        pair.take(ROWS)
        hidden = pair.forward(at)
        gradient = np.random.default_rng(number).normal(size=hidden.shape).astype(np.float32) / len(hidden)
        if labels == "device":
            gradient += pair.finish(at, hidden)
        pair.backward(at, gradient, pieces=bool(number % 2))
    assert np.abs(pair.lean.read() - before).max() > rate / 100


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("text", [False, True], ids=["images", "text"])
@pytest.mark.parametrize(
    "learn",
    [
        LearnSettings(optimizer="adam", weight_decay=0.1, clip=0.5, local="fedprox", prox=0.3),
        LearnSettings(optimizer="sgd", momentum=0.9, weight_decay=0.1, clip=0.0),
    ],
    ids=["adam, fedprox", "momentum"],
)
def test_every_optimiser(
    page: NodeEngine, tmp_path: Path, learn: LearnSettings, text: bool, answered: bool
) -> None:
    hand_made.write_tensors(tmp_path / "segment.safetensors", 3, "float32")
    bundle = hand_made.bundle(text, 3, labels_at_home=True, dropout=0.2, dtype="float32")
    pair = opened(page, tmp_path, bundle, hand_made.samples(text), learn, 2, "hand made")
    for number in range(STEPS):
        pair.take(ROWS)
        last = pair.forward(step_of(number))
        gradient = pair.finish(step_of(number), last.astype(np.float32))
        pair.backward(step_of(number), gradient if answered else None, pieces=True)


def test_a_reloaded_page_goes_on_where_it_was(page: NodeEngine, tmp_path: Path) -> None:
    pair = pair_of(page, tmp_path, "vit")
    gradient = np.random.default_rng(0).normal(size=(len(ROWS) * pair.lean.bundle.tokens, pair.lean.dim))

    def stepped(name: str, number: int) -> Any:
        page.ask("call", name=name, method="take", given=[pair.rows(ROWS)])
        page.ask("forward", name=name, at=plain(step_of(number)))
        sent = gradient.astype(np.float32).reshape(-1)
        return page.ask("backward", name=name, at=plain(step_of(number)), gradient=sent, pieces=False)[
            "values"
        ]

    stepped(pair.name, 0)
    given = {"graphs": text_of(pair.graphs), "segment": text_of(pair.segment), "learn": job_of(LEARN)}
    page.ask("open", name="reloaded", **given)
    assert page.ask("reload", **{"from": pair.name, "to": "reloaded"})["restored"]
    np.testing.assert_array_equal(stepped("reloaded", 1), stepped(pair.name, 1))
    # a step made again from the same values gives the same numbers
    hand_made.write_tensors(tmp_path / "segment.safetensors", 3, "float32")
    opened(
        page,
        tmp_path,
        hand_made.bundle(False, 3, dtype="float32"),
        hand_made.samples(False),
        LEARN,
        2,
        "other",
    )
    assert not page.ask("reload", **{"from": pair.name, "to": "other"})["restored"]


def test_rows_that_the_model_does_not_read_are_refused(page: NodeEngine, tmp_path: Path) -> None:
    pair = pair_of(page, tmp_path, "vit")
    for rows, reason in (
        ({"pixels": np.zeros(257, np.float32), "labels": [1]}, "257 pixels; this model reads 256 an image"),
        ({"pixels": np.zeros(512, np.float32), "labels": [1]}, "1 labels for 2 rows"),
    ):
        with pytest.raises(PageError, match=reason):
            pair.call("take", rows)
    with pytest.raises(PageError, match="WireError: 3 adapter values came"):
        pair.call("write", np.zeros(3, np.float32))
    given = {"graphs": text_of(pair.graphs), "segment": text_of(pair.segment)}
    with pytest.raises(PageError, match=r'learn\.optimizer is "adagrad"'):
        page.ask("open", name="x", **given, learn={"optimizer": "adagrad"})
    with pytest.raises(PageError, match="of cut 2 and task"):
        page.ask("open", name="x", **given, cut=3)
    assert pair.take(ROWS)["rows"] == len(ROWS)
