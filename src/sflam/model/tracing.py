"""The pieces of a device half as torch graphs with one symbolic size: the embedding, each block, the head.

``make_fx`` records what the product's own :class:`DeviceSegment` does on fake tensors: rows of images, or the tokens
of one text row, are the size n; attention is the plain one, and dropout becomes a mask drawn by a counter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from sflam.errors import GraphError
from sflam.learn.settings import LearnSettings
from sflam.model.block_inputs import Arguments
from sflam.model.dummy_inputs import pixel_shape
from sflam.model.families import CAUSAL
from sflam.model.losses import target_losses
from sflam.model.split import DeviceSegment

HINT = 7
"""A size that no other size of a model should be mistaken for; the graphs are run at others before they are used."""


@dataclass(frozen=True)
class Traced:
    """One traced piece.

    Attributes:
        module: the recorded operators; the model's tensors are its attributes.
        symbol: torch's name of n.
    """

    module: fx.GraphModule
    symbol: sympy.Symbol


class Tracing:
    """Traces the pieces of one segment, which has one row of adapters.

    Args:
        segment: in training mode, or not where nothing is dropped.
        text: whether it reads texts, one row at a time.
        image: [C, H, W] of the images it reads otherwise.
    """

    def __init__(self, segment: DeviceSegment, *, text: bool) -> None:
        self.segment, self.text = segment, text
        environment = ShapeEnv()
        self.fake = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
        source = ConstantSource("n")
        self.symbol = environment.create_symbol(HINT, source=source, dynamic_dim=DimDynamic.DYNAMIC)
        self.n: Any = environment.create_symintnode(self.symbol, hint=HINT, source=source)
        self.dtype = segment.dtype
        self.hidden: Tensor | None = None
        self._arguments: tuple[Arguments, list[Tensor]] | None = None

    def embed(self, cut: int) -> Traced:
        """Trace sample -> activations, then what the blocks before ``cut`` are given beside them, each once."""

        def run(sample: Tensor) -> list[Tensor]:
            hidden = self.segment.family.embed(self.segment.parts, {self.sample_name: sample})
            found = tensors_of(self.segment.surroundings(hidden, None), cut) if cut else []
            return [hidden, *found]

        with self._ready():
            if self.text:
                sample = torch.zeros(1, self.n, dtype=torch.int64)
            else:
                sample = torch.empty(self.n, *pixel_shape(self.segment.config), dtype=self.dtype)
            self.hidden = torch.empty_like(
                self.segment.family.embed(self.segment.parts, {self.sample_name: sample})
            )
            return self._trace(run, sample)

    @property
    def sample_name(self) -> str:
        """The input of the model that a sample is."""
        return "input_ids" if self.text else "pixel_values"

    def arguments(self, cut: int) -> tuple[Arguments, list[Tensor]]:
        """Return what the blocks are given beside their input, fake, and the tensors among it, each once."""
        if self._arguments is None:
            assert self.hidden is not None, "the embedding is traced first"
            with self._ready():
                arguments = self.segment.surroundings(torch.empty_like(self.hidden), None)
                self._arguments = arguments, tensors_of(arguments, cut)
        return self._arguments

    def block(self, index: int, cut: int, names: Sequence[str]) -> tuple[Traced, list[int]]:
        """Trace one block: activations, gradient and surroundings -> activations, gradient, those of ``names``.

        Returns:
            The trace, and which surroundings it is given, in order.
        """
        assert self.hidden is not None, "the embedding is traced first"
        trained = [self.segment.stack.tensors[name] for name in names]
        arguments, every = self.arguments(cut)
        with self._ready():
            hidden = torch.empty_like(self.hidden)
            leaves, structure = pytree.tree_flatten(dict(arguments(index)))
            own = [number for number, each in enumerate(every) if any(each is leaf for leaf in leaves)]

            def run(hidden: Tensor, gradient: Tensor, *around: Tensor) -> list[Tensor | None]:
                entering = hidden.detach().requires_grad_()
                given = {id(every[number]): each for number, each in zip(own, around, strict=True)}
                filled = [given.get(id(leaf), leaf) for leaf in leaves]
                block = self.segment.blocks[str(index)]
                out: Any = block(entering, **pytree.tree_unflatten(filled, structure))
                out = out[0] if isinstance(out, tuple) else out
                grads = torch.autograd.grad(out, [entering, *trained], gradient, allow_unused=True)
                return [out, grads[0], *map(_own_row, grads[1:])]

            return self._trace(run, hidden, torch.empty_like(hidden), *(every[number] for number in own)), own

    def head(self, task: str, settings: LearnSettings, names: Sequence[str]) -> Traced:
        """Trace activations, labels and share -> loss, gradient, gradients of ``names``."""
        assert self.hidden is not None, "the embedding is traced first"
        trained = [self.segment.stack.tensors[name] for name in names]

        def run(hidden: Tensor, labels: Tensor, share: Tensor) -> list[Tensor | None]:
            entering = hidden.detach().requires_grad_()
            logits = self.segment.head(self.segment.parts, entering, None)
            losses = target_losses(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), settings)
            loss = losses.sum() * share
            grads = torch.autograd.grad(loss, [entering, *trained], allow_unused=True)
            return [loss, grads[0], *map(_own_row, grads[1:])]

        with self._ready():
            hidden = torch.empty_like(self.hidden)
            count = (1, self.n) if task == CAUSAL else (1,) if self.text else (self.n,)
            share = torch.empty((), dtype=torch.float32 if task == CAUSAL else self.dtype)
            return self._trace(run, hidden, torch.zeros(count, dtype=torch.int64), share)

    def _trace(self, run: Callable[..., Any], *inputs: Tensor) -> Traced:
        """Record what ``run`` does."""

        def flat(*given: Tensor) -> Any:
            with Masks():
                return run(*given)

        try:
            module = make_fx(flat, tracing_mode="real")(*inputs)
        except GraphError:
            raise
        except Exception as error:  # a model's own code may do anything with fake tensors
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise GraphError(f"the model cannot be traced ({reason})") from error
        return Traced(module, self.symbol)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Compute on fake tensors, with plain attention, for one device's rows."""
        config = self.segment.config
        before = config._attn_implementation
        config._attn_implementation = "eager"
        forget_cached(self.segment)
        try:
            with self.fake, torch.enable_grad():
                yield
        finally:
            config._attn_implementation = before
            forget_cached(self.segment)


class Masks(TorchFunctionMode):
    """Records a dropout as one drawing of its mask, which is already 1 / (1 - p) where it is not 0."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace ``dropout`` and let all others pass."""
        if func is F.dropout or func is torch.dropout:
            return _masked(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def forget_cached(model: nn.Module) -> None:
    """Clear the caches of a model's methods: what was made of fake tensors is of no use outside, nor the reverse."""
    for kind in {base for module in model.modules() for base in type(module).__mro__}:
        for value in vars(kind).values():
            method = getattr(value, "__func__", value)
            for each in (method, getattr(method, "__wrapped__", None), *_enclosed(method)):
                if hasattr(each, "cache_clear"):
                    each.cache_clear()


def _enclosed(method: Any) -> Iterator[Any]:
    """Yield what a function closes over: Hugging Face wraps a cached function once more."""
    for cell in getattr(method, "__closure__", None) or ():
        with suppress(ValueError):  # a cell not filled yet
            yield cell.cell_contents


def _masked(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return input * torch.bernoulli(input.detach(), 1 - p) if training and p else input


def tensors_of(arguments: Arguments, cut: int) -> list[Tensor]:
    """Return the tensors among what the blocks before ``cut`` are given, each once, in order."""
    found: list[Tensor] = []
    for index in range(cut):
        for leaf in pytree.tree_leaves(dict(arguments(index))):
            if isinstance(leaf, Tensor) and not any(leaf is each for each in found):
                found.append(leaf)
    return found


def _own_row(gradient: Tensor | None) -> Tensor | None:
    """Return the gradient of the one row of a stacked tensor."""
    return None if gradient is None else gradient.squeeze(0)
