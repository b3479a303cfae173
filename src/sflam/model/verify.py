"""Comparison of a split model with the unmodified one: the check behind ``sflam verify``.

The reference is the unmodified Hugging Face class called with labels; inputs are made from the model's config, so
no tokenizer or image is needed. Adapters get random values first: a fresh LoRA's B is zero and would hide errors.

B rows, T tokens, d hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from sflam.errors import ModelError
from sflam.model.adapters import attach, load_state, state_of
from sflam.model.backbone import Backbone
from sflam.model.block_stubs import split_arguments
from sflam.model.dummy_inputs import ROWS, make_inputs, valid_tokens, with_mask
from sflam.model.families import CAUSAL, blocks_of
from sflam.model.full import FullModel
from sflam.model.lora import Rows
from sflam.model.loss import group_losses
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from sflam.model.structure import ADVICE

DOUBLED = 10**9
"""Models of up to so many numbers are compared in float64, which takes twice their memory for a moment."""

EXACT_ZERO = 1e-12
"""Relative to the largest gradient of all: below it a gradient is zero in theory, and compared absolutely."""


@dataclass(frozen=True)
class Difference:
    """The largest relative differences max|a-b| / max|b| at one cut, split against whole."""

    cut: int
    loss: float
    activations: float
    gradients: float

    @property
    def largest(self) -> float:
        """The largest of the three."""
        return max(self.loss, self.activations, self.gradients)


def tolerance(backbone: Backbone) -> float:
    """Return the largest difference that still counts as equal.

    1e-9 in float64 and 1e-5 in float32 (one step); a language model's loss is in float32 in Hugging Face itself,
    whatever the model's precision, which leaves 1e-6.
    """
    if backbone.model.dtype != torch.float64:
        return 1e-5
    return 1e-6 if backbone.task == CAUSAL else 1e-9


def verify(
    backbone: Backbone,
    cuts: Iterable[int],
    settings: ModelSettings | None = None,
    *,
    perturb: float = 0.0,
    seed: int = 0,
) -> Iterator[Difference]:
    """Yield split against whole for each cut.

    Args:
        backbone: the model; adapters are attached to it.
        cuts: blocks on the device.
        settings: rank and targets of the adapters.
        perturb: added to one value at the boundary; above the tolerance the check must fail.
        seed: seed of inputs and adapters.

    Raises:
        ModelError: a cut outside 0..L, or a model split by its structure that cannot be run so.
    """
    model = attach(backbone, settings or ModelSettings(), seed=seed)
    with _refusing_unknown(backbone):
        yield from differences(backbone, model, cuts, perturb=perturb, seed=seed)


def expect_equal(backbone: Backbone, model: PeftModel, cuts: Iterable[int]) -> float:
    """Return the largest difference at ``cuts``, of two devices side by side; the model is left as it was.

    It is looked for in float64, unless the model is large. A model that does not pass so, because its class computes
    parts of itself in float32, must be equal in its own precision.

    Raises:
        ModelError: the split model is not the whole one, or cannot be run.
    """
    small = sum(parameter.numel() for parameter in model.parameters()) <= DOUBLED
    cuts = sorted(set(cuts))
    if small:
        with suppress(ModelError):
            return _largest(backbone, model, cuts, double=True)
    return _largest(backbone, model, cuts, double=False)


def _largest(backbone: Backbone, model: PeftModel, cuts: Iterable[int], double: bool) -> float:
    """Return the largest difference at ``cuts``; see :func:`expect_equal`."""
    before, training = state_of(model), model.training
    name = type(backbone.model).__name__
    try:
        with _refusing_unknown(backbone), in_double(model) if double else nullcontext():
            found = list(differences(backbone, model, cuts, counts=(1, ROWS - 1)))
            limit = tolerance(backbone)
    finally:
        load_state(model, before)
        model.train(training)
    worst = max(found, key=lambda difference: difference.largest)
    if not worst.largest <= limit:  # NaN is no equality either
        parts = {"loss": worst.loss, "activations": worst.activations, "gradients": worst.gradients}
        differing = ", ".join(f"{part} by {value:.1e}" for part, value in parts.items() if not value <= limit)
        raise ModelError(
            f"model class {name} is in no known family, and split by its structure at cut {worst.cut} it is not the "
            f"same model: it differs in {differing} (at most {limit:.0e} is allowed); {ADVICE}"
        )
    return worst.largest


def differences(
    backbone: Backbone,
    model: PeftModel,
    cuts: Iterable[int],
    *,
    counts: tuple[int, ...] = (ROWS,),
    perturb: float = 0.0,
    seed: int = 0,
) -> Iterator[Difference]:
    """Yield split against whole for each cut of an adapted model, whose adapters get random values.

    ``counts`` are the rows of each of K devices side by side, each with adapters of its own.
    """
    draw = torch.Generator().manual_seed(seed)
    # A network of noise alone would drown its own gradients.
    keep = 1.0 if isinstance(model, FullModel) else 0.0
    states = [
        {n: t * keep + torch.randn(t.shape, generator=draw).to(t) * 0.05 for n, t in state_of(model).items()}
        for _ in counts
    ]
    model.eval()
    inputs, lengths, labels = make_inputs(backbone.model, backbone.task, draw)
    rows = Rows(tuple(range(len(counts))), counts)
    unsplit = []
    for state, at in zip(states, _slices(counts), strict=True):
        load_state(model, state)
        own = {name: tensor[at] for name, tensor in inputs.items()}
        unsplit.append(_whole(backbone, model, own, None if lengths is None else lengths[at], labels[at]))
    for cut in cuts:
        device, server = split(backbone, model, [cut] * len(counts))
        for row, state in enumerate(states):
            device.stack.write(row, state)
            server.stack.write(row, state)
        device.eval(), server.eval()
        hidden = device(inputs, lengths, cut, rows)
        exchange = hidden.detach().clone()
        exchange[0, 0, 0] += perturb
        exchange.requires_grad_()
        losses = group_losses(backbone.task, server([Arrival(cut, exchange, rows)], lengths), labels, counts)
        (back,) = server.stack.backward(losses.sum(), inputs=[exchange])
        if hidden.requires_grad:
            device.stack.backward(hidden, back)
        valid = torch.ones(hidden.shape[:2], device=hidden.device).bool()
        if lengths is not None:
            valid = valid_tokens(lengths, hidden.shape[1]).bool()
        found = []
        for row, (at, (loss, boundaries, gradients)) in enumerate(zip(_slices(counts), unsplit, strict=True)):
            trained = device.stack.gradient(row) | server.stack.gradient(row)
            assert trained.keys() <= gradients.keys()
            scale = max(float(gradient.abs().max()) for gradient in gradients.values())
            difference = Difference(
                cut,
                relative(losses[row].detach().double(), loss.double()),
                relative(exchange.detach()[at][valid[at]], boundaries[cut][valid[at]]),
                max(
                    relative(trained.get(name, torch.zeros_like(whole)), whole, scale * EXACT_ZERO)
                    for name, whole in gradients.items()
                ),
            )
            found.append(difference)
        yield max(found, key=lambda difference: difference.largest)


@contextmanager
def _refusing_unknown(backbone: Backbone) -> Iterator[None]:
    """Turn whatever the passes of a model split by its structure raise into a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if backbone.family.gates is None:
            raise
        reason, name = (
            " ".join(str(error).split())[:200] or type(error).__name__,
            type(backbone.model).__name__,
        )
        raise ModelError(
            f"model class {name} is in no known family and cannot be run split by its structure "
            f"({reason}); {ADVICE}"
        ) from error


def _slices(counts: tuple[int, ...]) -> list[slice]:
    """Return the rows of each device."""
    ends = list(accumulate(counts))
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


@contextmanager
def in_double(model: PeftModel) -> Iterator[None]:
    """Compute in float64 inside; every tensor gets its own precision, and the same values, back."""
    tensors = [t for t in [*model.parameters(), *model.buffers()] if t.is_floating_point()]
    kept = [tensor.dtype for tensor in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.double()
    try:
        yield
    finally:
        for tensor, dtype in zip(tensors, kept, strict=True):
            tensor.data = tensor.data.to(dtype)


def relative(a: Tensor, b: Tensor, zero: float = 0.0) -> float:
    """Return max|a-b| / max|b|, or max|a-b| itself where max|b| is at most ``zero``."""
    difference, scale = float((a - b).abs().max()), float(b.abs().max())
    return difference / scale if scale > zero else difference


def _whole(
    backbone: Backbone, model: PeftModel, inputs: dict[str, Tensor], lengths: Tensor | None, labels: Tensor
) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Return the Hugging Face class's loss, its activations at every cut, and its adapter gradients."""
    blocks = blocks_of(backbone.model, backbone.family)
    boundaries: list[Tensor] = []

    def enter(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, _ = split_arguments(inspect.signature(block.forward), args, kwargs)
        boundaries.append(hidden.detach())

    def leave(_: Any, __: Any, output: Any) -> None:
        boundaries.append((output[0] if isinstance(output, tuple) else output).detach())

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        hooks.callback(blocks[-1].register_forward_hook(leave).remove)
        loss = model(**with_mask(inputs, lengths), labels=labels).loss
    trained = {
        name.replace(".default", "").replace("modules_to_save.", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), boundaries, dict(zip(trained, found, strict=True))
