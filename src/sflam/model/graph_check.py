"""Whether the graphs of a device half compute what torch computes: activations, loss and every gradient.

The half's own segment runs piece by piece on random rows; where something is dropped, it is dropped by the masks that
the graphs draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sflam.errors import GraphError
from sflam.graph import bundle as roles
from sflam.graph.bundle import Binding, Bundle, Source
from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.size import shape_of
from sflam.model.device_graphs import DeviceHalf
from sflam.model.dummy_inputs import pixel_shape
from sflam.model.export import device_tensors
from sflam.model.families import CAUSAL
from sflam.model.interpreter import run_graph
from sflam.model.losses import target_losses
from sflam.model.lower_rank import first_components

Array = NDArray[Any]
TOLERANCE = 1e-5
TEXT_SIZES, IMAGE_SIZES = (1, 3, 11), (1, 3)
SEED = 20260
SMALL = 0.1
"""Share of the largest gradient in relation to which smaller ones are compared: rounding is that of the largest.

The gradient of queries and keys of a text of one token is exactly zero, and rounding alone in float32.
"""


@dataclass(frozen=True)
class SampleGroup:
    """One random group of rows, as arrays.

    Attributes:
        sample: input_ids [1,n], or pixel_values [n,C,H,W].
        labels: as the head takes them.
        gradient: of the activations at the cut, [1,n,d] or [n,T,d].
        share: weight of a target.
    """

    sample: Array
    labels: Array
    gradient: Array
    share: float


def expect_equal(bundle: Bundle, half: DeviceHalf, tensors: Mapping[str, Tensor]) -> float:
    """Return the largest relative difference between the graphs and torch over a few sizes.

    Args:
        bundle: the graphs.
        half: what they were traced from.
        tensors: name -> frozen tensor, as in the segment file.

    Raises:
        GraphError: it is more than ``TOLERANCE``.
    """
    worst = max(differences(bundle, half, tensors), key=lambda each: each[1], default=("", 0.0))
    if not worst[1] <= TOLERANCE:
        raise GraphError(
            f"{worst[0]} differs from torch's by {worst[1]:.1e}; at most {TOLERANCE:.0e} is allowed"
        )
    return worst[1]


def differences(
    bundle: Bundle, half: DeviceHalf, tensors: Mapping[str, Tensor], sizes: Sequence[int] = ()
) -> Iterator[tuple[str, float]]:
    """Yield what was compared at which size, and the largest relative difference."""
    held = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    most = bundle.tokens or max(TEXT_SIZES)
    for n in sizes or [
        n for n in (TEXT_SIZES if bundle.text else IMAGE_SIZES) if not bundle.text or n <= most
    ]:
        rows = random_rows(bundle, half, n)
        ours, theirs = run_bundle(bundle, half, held, rows, n), _torch(bundle, half, rows)
        scale = max(
            (float(np.abs(a).max()) for name, a in theirs.items() if name.startswith("gradient")), default=0
        )
        for name, wanted in theirs.items():
            zero = scale * SMALL if name.startswith("gradient") else 0.0
            yield f"{name} for n = {n}", _relative(ours[name], wanted, zero)


def run_bundle(
    bundle: Bundle,
    half: DeviceHalf,
    held: Mapping[str, Array],
    rows: SampleGroup,
    n: int,
    *,
    keep: Any = None,
    runs: Callable[..., dict[str, Array]] = run_graph,
) -> dict[str, Array]:
    """Return what the graphs make of one group of rows: activations, loss, and gradients, by name.

    ``runs`` runs one graph, and is given what :func:`run_graph` is.
    """
    trained = {name: tensor.detach()[0].numpy() for name, tensor in half.segment.stack.tensors.items()}
    known: dict[Source, Any] = {
        Source(roles.SAMPLE, "input_ids" if bundle.text else "pixel_values"): rows.sample,
        Source(roles.LABELS): rows.labels,
        Source(roles.SHARE): rows.share,
    }
    found: dict[str, Array] = {}

    def run(graph: Graph, binding: Binding, seed: int) -> dict[Source, Array]:
        given = {}
        for name in graph.inputs:
            source = binding.inputs[name]
            by_name = {roles.FROZEN: held, roles.TRAINED: trained}.get(source.role)
            given[name] = known[source] if by_name is None else by_name[source.name]
        out = runs(graph, given, n, seed=seed, dtype=bundle.dtype, keep=keep)
        return {binding.outputs[name]: array for name, array in out.items()}

    known |= run(bundle.embed.graph, bundle.embed.binding, SEED)
    hidden = [known[Source(roles.HIDDEN)]]
    for index, block in enumerate(bundle.blocks):
        known |= run(bundle.kinds[block.kind].forward, block.binding, SEED + 1 + index)
        hidden.append(known[Source(roles.HIDDEN)])
    found["activations"] = hidden[-1]
    gradients: dict[Source, Array] = {}
    if bundle.head is not None:
        out = run(bundle.head.graph, bundle.head.binding, SEED - 1)
        found["loss"] = out.pop(Source(roles.LOSS))
        found["gradient at the head"] = out.pop(Source(roles.GRADIENT))
        gradients |= out
    known[Source(roles.GRADIENT)] = rows.gradient
    for index in reversed(range(bundle.cut)):
        block = bundle.blocks[index]
        joint = bundle.kinds[block.kind].joint
        if joint is not None:
            known[Source(roles.HIDDEN)] = hidden[index]
            out = run(joint, block.binding, SEED + 1 + index)
            known[Source(roles.GRADIENT)] = out.pop(Source(roles.GRADIENT), None)
            gradients |= out
    return found | {f"gradient of {source.name}": array for source, array in gradients.items()}


def random_rows(bundle: Bundle, half: DeviceHalf, n: int) -> SampleGroup:
    """Return random rows of size ``n``."""
    draw, config = np.random.default_rng(n), half.segment.config
    classes = int(config.vocab_size) if bundle.task == CAUSAL else max(2, int(config.num_labels))
    if bundle.text:
        sample = draw.integers(1, config.vocab_size, size=(1, n))
        shape: tuple[int, ...] = (1, n, bundle.dim)
        labels = draw.integers(0, classes, size=(1, n) if bundle.task == CAUSAL else (1,))
    else:
        sample = draw.normal(size=(n, *pixel_shape(config))).astype(bundle.dtype)
        shape, labels = (n, bundle.tokens, bundle.dim), draw.integers(0, classes, size=(n,))
    gradient = draw.normal(size=shape).astype(bundle.dtype)
    return SampleGroup(sample, labels, gradient, 0.25)


def _torch(bundle: Bundle, half: DeviceHalf, rows: SampleGroup) -> dict[str, Array]:
    """Return the same by the segment itself."""
    segment, config = half.segment, half.segment.config
    before = config._attn_implementation
    drops = _draws(bundle)
    if drops:  # the masks of other implementations cannot be chosen
        config._attn_implementation = "eager"
    trained = [name for name in bundle.trained]
    try:
        sample = {"input_ids" if bundle.text else "pixel_values": torch.from_numpy(rows.sample)}
        with _masks(SEED, drops):
            hidden = segment.family.embed(segment.parts, sample)
        arguments = segment.surroundings(hidden, None) if bundle.cut else None
        for index in range(bundle.cut):
            assert arguments is not None
            with _masks(SEED + 1 + index, drops):
                hidden = segment._block(index, hidden, arguments)
        found = {"activations": hidden.detach().numpy()}
        gradients: dict[str, Array] = {}
        if bundle.head is not None:
            leaf = hidden.detach().requires_grad_()
            with _masks(SEED - 1, drops):
                logits = segment.head(segment.parts, leaf, None)
            labels = torch.from_numpy(rows.labels).reshape(-1)
            loss = target_losses(logits.reshape(len(labels), -1), labels, half.learn).sum() * rows.share
            found["loss"] = loss.detach().numpy()
            gradients, (back,) = _gradients(half, loss, None, trained, [leaf])
            found["gradient at the head"] = back
        if hidden.requires_grad and any(segment.block_of(name) is not None for name in trained):
            below, _ = _gradients(half, hidden, torch.from_numpy(rows.gradient).to(hidden), trained, [])
            gradients |= below
        return found | {f"gradient of {name}": gradients[name] for name in trained}
    finally:
        config._attn_implementation = before


def _draws(bundle: Bundle) -> bool:
    """Whether anything in a bundle is drawn at random."""
    graphs = [bundle.embed.graph, *(kind.forward for kind in bundle.kinds)]
    graphs += [bundle.head.graph] if bundle.head else []
    kinds = {operation.kind for graph in graphs for operation in graph.operations}
    return bool(kinds & {"dropout_mask", "uniform"})


def _gradients(
    half: DeviceHalf, out: Tensor, gradient: Tensor | None, names: Sequence[str], others: Sequence[Tensor]
) -> tuple[dict[str, Array], list[Array]]:
    tensors = [half.segment.stack.tensors[name] for name in names]
    found = torch.autograd.grad(out, [*others, *tensors], gradient, allow_unused=True)
    own = zip(names, found[len(others) :], strict=True)
    return (
        {name: each[0].numpy() for name, each in own if each is not None},
        [each.numpy() for each in found[: len(others)] if each is not None],
    )


def _relative(a: Array, b: Array, zero: float) -> float:
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    difference, scale = float(np.abs(a.astype(np.float64) - b).max()), float(np.abs(b).max())
    return difference / max(scale, zero) if max(scale, zero) > 0 else difference


@contextmanager
def _masks(seed: int, drops: bool) -> Iterator[None]:
    """Drop by the masks a graph of this seed draws."""
    if drops:
        with _CountedMasks(seed):
            yield
    else:
        yield


class _CountedMasks(TorchFunctionMode):
    """Draws what ``dropout`` and ``rand`` draw as the interpreter does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.streams = seed, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace the two and let all others pass."""
        if func is F.dropout or func is torch.dropout:
            return self._dropped(*args, **(kwargs or {}))
        if func is torch.rand:
            options = {key: value for key, value in (kwargs or {}).items() if key == "dtype"}
            shape = args[0] if isinstance(args[0], tuple | list | torch.Size) else args
            return self._drawn("uniform", tuple(shape), {}).to(**options)
        return func(*args, **(kwargs or {}))

    def _dropped(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not (training and p):
            return input
        return input * self._drawn("dropout_mask", tuple(input.shape), {"p": 1.0 - (1 - p)}).to(input.dtype)

    def _drawn(self, kind: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> Tensor:
        made = Value(shape_of(*shape))
        attributes = {"shape": made.shape, **attributes, "stream": self.streams}
        self.streams += 1
        operation = Operation(kind, (), ("mask",), attributes)
        graph = Graph((), ("mask",), {"mask": made}, (operation,))
        return torch.from_numpy(run_graph(graph, {}, 1, seed=self.seed, dtype="float64")["mask"])


def frozen_tensors(half: DeviceHalf, model: Any) -> dict[str, Tensor]:
    """Return name -> frozen tensor of a half, as its segment file holds them."""
    learn = half.learn.practice
    found = device_tensors(
        half.backbone,
        model,
        half.cut,
        "device" if half.segment.has_head else "server",
        frozen_a=learn.aggregation == "freeze-a",
        frozen_half=learn.device_half == "frozen",
        tuned=half.tuned,
    )
    if not half.rank:
        return found
    return {name: first_components(name, tensor, half.rank) for name, tensor in found.items()}
