"""Running a model's own forward around its blocks: gates stand where the blocks were, in a copy without them.

One copy serves three passes. ``front`` runs up to the first block and hands out what it would be given; ``calls``
lets stand-in inputs pass to learn what each block is given beside its input; ``rest`` runs from the last block on,
with its true output put in the place of the stand-in's. What such a split cannot see (a block that needs another's
second result, for example) shows in the equality check every model split this way must pass.

R rows, T tokens, d hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sflam.model.block_inputs import Arguments
from sflam.model.dummy_inputs import stand_in, valid_tokens

WHOLE = "whole"
"""Name of the gated copy among a segment's parts."""

Visit = Callable[[int, Tensor, dict[str, Any]], Tensor]


class Reached(Exception):
    """A pass came as far as it was meant to.

    Attributes:
        hidden: [R,T,d] what the next block would have been given.
    """

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class Gate(nn.Module):
    """What stands in for one block.

    Args:
        block: the block it stands for; only its plain attributes and its signature are kept.
        index: which block.
        width: entries of the tuple a block returns; 0 when it returns a tensor.
        visits: one-element list with what to do when a gate is reached, shared by all gates of a copy.
    """

    def __init__(self, block: nn.Module, index: int, width: int, visits: list[Visit]) -> None:
        super().__init__()
        plain = {k: v for k, v in vars(block).items() if isinstance(v, bool | int | float | str)}
        vars(self).update({key: value for key, value in plain.items() if not key.startswith("_")})
        self._signature = inspect.signature(block.forward)
        self._index, self._width, self._visits = index, width, visits

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take a block's arguments and return what the visit makes of them, as a block would."""
        hidden, given = split_arguments(self._signature, args, kwargs)
        out = self._visits[0](self._index, hidden, given)
        return (out, *(None,) * (self._width - 1)) if self._width else out


class Absent(nn.Module):
    """What stands in for a part that the other side of the cut holds."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Fail: no pass comes here."""
        raise AssertionError("a pass reached a part that the other side holds")


def split_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """Return a block's input, its first argument, and all others by name; raises TypeError where they do not fit."""
    given = dict(signature.bind(*args, **kwargs).arguments)
    first = next(iter(signature.parameters))
    hidden = given.pop(first)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY) and name in given:
            raise TypeError(f"a block takes {name} without a name")
    return hidden, given


@dataclass(frozen=True)
class BlockGates:
    """Makes the gates of a model's blocks.

    Attributes:
        width: entries of the tuple a block returns; 0 when it returns a tensor.
    """

    width: int

    def __call__(self, blocks: nn.ModuleList) -> dict[nn.Module, nn.Module]:
        """Return a gate for each block, with one visit for all."""
        visits: list[Visit] = []
        return {block: Gate(block, index, self.width, visits) for index, block in enumerate(blocks)}


def front(parts: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return [R,T,d], what the first block is given for ``inputs``."""

    def stop(index: int, hidden: Tensor, given: dict[str, Any]) -> Tensor:
        raise Reached(hidden)

    model = getattr(parts, WHOLE)
    own = {name: t.to(model.dtype) if t.is_floating_point() else t for name, t in inputs.items()}
    if "input_ids" in own:  # what attends to what is no matter before the blocks
        own["attention_mask"] = torch.ones_like(own["input_ids"])
    hidden = _run(model, own, stop)
    assert isinstance(hidden, Tensor)
    return hidden


def calls(parts: Any, config: Any, hidden: Tensor, padding: Tensor | None) -> Arguments:
    """Return what each block is given beside its input; see :mod:`sflam.model.block_inputs`."""
    model = getattr(parts, WHOLE)
    seen: list[dict[str, Any]] = []
    depth = sum(isinstance(module, Gate) for module in model.modules())

    def record(index: int, entering: Tensor, given: dict[str, Any]) -> Tensor:
        seen.append(given)
        if index == depth - 1:
            raise Reached(entering)
        return entering

    with torch.no_grad(), torch.random.fork_rng(devices=[hidden.device] if hidden.is_cuda else []):
        _run(model, stand_in(model, hidden.shape[0], hidden.shape[1], padding), record)
    return seen.__getitem__


def rest(parts: Any, hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the logits of [R,T,d], the output of the last block."""
    model = getattr(parts, WHOLE)
    padding = None if lengths is None else valid_tokens(lengths, hidden.shape[1])
    depth = sum(isinstance(module, Gate) for module in model.modules())
    before = torch.get_rng_state()
    on_cuda = torch.cuda.get_rng_state(hidden.device) if hidden.is_cuda else None

    def inject(index: int, passing: Tensor, given: dict[str, Any]) -> Tensor:
        if index < depth - 1:
            return passing
        torch.set_rng_state(before)  # the stand-in's own dropout was none of this pass
        if on_cuda is not None:
            torch.cuda.set_rng_state(on_cuda, hidden.device)
        return hidden

    out = _run(model, stand_in(model, hidden.shape[0], hidden.shape[1], padding), inject)
    logits: Tensor = out.logits
    return logits


def _run(model: Any, inputs: Mapping[str, Tensor], visit: Visit) -> Any:
    """Run the class's own forward; return what it returns, or what it had reached when the visit ended it."""
    visits = next(module for module in model.modules() if isinstance(module, Gate))._visits
    visits[:] = [visit]
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    try:
        return model(**inputs, **options)
    except Reached as end:
        return end.hidden
    finally:
        visits.clear()
