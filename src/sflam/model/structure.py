"""Models the table of families does not know, split by what they look like: the longest list of like blocks.

What runs before the first block belongs to the device, what runs after the last to the side with the labels. One
trial pass of the unmodified class finds which is which, and refuses what cannot be cut so. Before such a model is
trained, ``expect_equal`` in :mod:`sflam.model.verify` compares it, split, with the unmodified class.

B rows, T tokens, d hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from sflam.errors import ModelError
from sflam.model import block_stubs
from sflam.model.dummy_inputs import make_inputs, with_mask
from sflam.model.families import CAUSAL, FAMILIES, IMAGE, SEQUENCE, Family, Task
from sflam.model.layout import PartLayout

ADVICE = f"use a model of a known family: {', '.join(sorted(FAMILIES))}"


def family_of(model_type: str) -> Family:
    """Return the family of a ``model_type``: the table's row, or one that knows its tasks alone until it is loaded.

    Raises:
        ModelError: no class of such a model does a task of sflam's.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    named: dict[str, Mapping[str, Any]] = {
        IMAGE: modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        SEQUENCE: modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        CAUSAL: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    found = {task: names[model_type] for task, names in named.items() if model_type in names}
    if model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        found.pop(CAUSAL, None)  # it sees the tokens it would have to predict
    tasks = {t: Task(name, (), block_stubs.rest) for t, name in found.items() if isinstance(name, str)}
    if not tasks:
        raise ModelError(
            f"model type {model_type!r} is in no known family, and transformers has no class of it for "
            f"{IMAGE}, {SEQUENCE} or {CAUSAL}; {ADVICE}"
        )
    return Family(
        name=model_type,
        base="",
        front=(),
        blocks="",
        back=(),
        embed=block_stubs.front,
        surroundings=block_stubs.calls,
        tasks=tasks,
        causal=CAUSAL in tasks,
    )


def completed(family: Family, model: Any, task: str) -> Family:
    """Return ``family`` with the places of its parts, as a loaded model of it shows them.

    Raises:
        ModelError: the model has no list of like blocks that its hidden states pass once, one after the other.
    """
    if family.blocks:
        return family
    path = _longest_list(model)
    trial = _Trial(model, path)
    trial.run(task)
    before, after = trial.sides()
    base, _, blocks = path.rpartition(".")
    while "." in base:  # the first name is the backbone's, as in the table
        base, _, inner = base.rpartition(".")
        blocks = f"{inner}.{blocks}"
    inside = f"{base}." if base else ""
    back = tuple(name for name in after if inside and name.startswith(inside))
    layout = PartLayout(
        base=base,
        blocks=blocks,
        front=tuple(name.removeprefix(inside) for name in before),
        back=tuple(name.removeprefix(inside) for name in back),
        head=tuple(name for name in after if name not in back),
        width=trial.width,
    )
    return laid_out(family, layout, task)


def laid_out(family: Family, layout: PartLayout, task: str) -> Family:
    """Return ``family`` with the places of its parts in one of its models."""
    return replace(
        family,
        base=layout.base,
        front=layout.front,
        blocks=layout.blocks,
        back=layout.back,
        tasks={task: replace(family.tasks[task], head=layout.head)},
        gates=block_stubs.BlockGates(layout.width),
    )


def layout_of(family: Family, task: str) -> PartLayout | None:
    """Return where the parts of a completed family are; None where the table of families knows it."""
    if family.gates is None:
        return None
    head, width = family.tasks[task].head, family.gates.width
    return PartLayout(family.base, family.blocks, family.front, family.back, head, width)


def _longest_list(model: Any) -> str:
    """Return the name of the longest ModuleList of one class, not counting lists inside other lists' entries."""
    lists: dict[str, int] = {
        name: len(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(entry) for entry in module}) == 1
    }
    if not lists:
        raise _refused(model, "it has no list of like blocks")
    return max(_outermost(lists), key=lists.__getitem__)


def _refused(model: Any, reason: str) -> ModelError:
    return ModelError(
        f"model class {type(model).__name__} is in no known family and cannot be split by its structure: {reason}; "
        f"{ADVICE}"
    )


@dataclass
class _Trial:
    """One pass of the unmodified model, watched.

    Attributes:
        model: the model.
        path: name of its list of blocks.
        calls: name -> (begun, ended) of every call, in events since the start.
        order: indices of the blocks as they were run.
        width: entries of the tuple a block returns; 0 when it returns a tensor.
        shape: of what passes the blocks, [B,T,d].
    """

    model: Any
    path: str
    calls: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    width: int = 0
    shape: torch.Size | None = None
    events: int = 0

    def run(self, task: str) -> None:
        """Run a small random batch; raises ModelError where the blocks are not run as a cut needs them to be."""
        model, config = self.model, self.model.config
        numbers = {key: value for key, value in config.to_dict().items() if isinstance(value, float)}
        drops = [key for key, value in numbers.items() if "layerdrop" in key and value > 0]
        if drops:
            raise _refused(model, f"{drops[0]} = {getattr(config, drops[0]):g} leaves blocks out at random")
        if getattr(config, "is_encoder_decoder", False):
            raise _refused(model, "it has an encoder and a decoder, and a cut knows one list of blocks")
        training = model.training
        model.eval()
        try:
            with ExitStack() as hooks, torch.no_grad():
                for name, module in model.named_modules():
                    self._watch(hooks, name, module)
                inputs, lengths, _ = make_inputs(model, task, torch.Generator().manual_seed(0))
                model(**with_mask(inputs, lengths))
        except ModelError:
            raise
        except Exception as error:  # an unknown forward may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise _refused(model, f"a trial pass on made-up inputs failed ({reason})") from error
        finally:
            model.train(training)
        blocks = model.get_submodule(self.path)
        assert isinstance(blocks, nn.ModuleList)
        if self.order != list(range(len(blocks))):
            raise _refused(
                model,
                f"the {len(blocks)} entries of {self.path} are run {len(self.order)} times, not once each in order: "
                "its layers are shared or left out",
            )

    def sides(self) -> tuple[list[str], list[str]]:
        """Return the names of the largest parts that run only before the blocks, and only after them."""
        begun = self.calls[f"{self.path}.0"][0][0]
        ended = self.calls[f"{self.path}.{len(self.order) - 1}"][0][1]
        before, after = [], []
        for name, spans in self.calls.items():
            if all(end < begun for _, end in spans):
                before.append(name)
            elif all(start > ended for start, _ in spans):
                after.append(name)
        return _outermost(before), _outermost(after)

    def _watch(self, hooks: ExitStack, name: str, module: nn.Module) -> None:
        is_block = name.rpartition(".")[0] == self.path
        signature = inspect.signature(module.forward) if is_block else inspect.Signature()
        spans: list[int] = []

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.events += 1
            spans.append(self.events)
            if is_block:
                self.order.append(int(name.rpartition(".")[2]))
                hidden, _given = block_stubs.split_arguments(signature, args, kwargs)
                self._expect_tokens(hidden, name)

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.events += 1
            self.calls.setdefault(name, []).append((spans.pop(), self.events))
            if is_block:
                self.width = len(output) if isinstance(output, tuple) else 0
                self._expect_tokens(output[0] if isinstance(output, tuple) else output, name)

        hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        hooks.callback(module.register_forward_hook(leave).remove)

    def _expect_tokens(self, hidden: Any, name: str) -> None:
        """Raise ModelError unless [B,T,d] passes a block, always of one shape."""
        if not isinstance(hidden, Tensor) or hidden.ndim != 3:
            raise _refused(self.model, f"{name} does not take and return rows of tokens")
        self.shape = self.shape or hidden.shape
        if hidden.shape != self.shape:
            changed = f"{tuple(self.shape)} to {tuple(hidden.shape)}"
            raise _refused(self.model, f"its blocks change the shape of what passes, {changed}")


def _outermost(names: Collection[str]) -> list[str]:
    """Return the names that are not inside others."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
