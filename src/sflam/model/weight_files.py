"""Loading a model whose server blocks stay in their files: transformers reads everything else, and says where they are.

A block's weights are then read as they are wanted: all of them, or the slices that are one rank's. A checkpoint in
another format than safetensors, or one that transformers converts, is written anew once, tensor by tensor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_submodules
from safetensors import safe_open
from torch import Tensor, nn

from sflam.errors import ModelError
from sflam.model.families import Family, blocks_of


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        file: a safetensors file.
        name: of the tensor, there.
    """

    file: str
    name: str

    @property
    def tensor(self) -> Tensor:
        """The tensor, on the CPU; its pages are the file's until they are written."""
        with safe_open(self.file, framework="pt") as opened:
            found: Tensor = opened.get_tensor(self.name)
        return found

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the rows ``start`` to ``stop`` of the tensor's first dimension, which it has."""
        with safe_open(self.file, framework="pt") as opened:
            found: Tensor = opened.get_slice(self.name)[start:stop]
        return found


@dataclass(frozen=True)
class LeftInFiles:
    """Which blocks a model is loaded without.

    Attributes:
        start: the first of them; all that follow are too.
        setting: what asked for it, for errors.
        device: where everything else is loaded to.
    """

    start: int
    setting: str
    device: torch.device

    def options(self, family: Family, reference: Any, config: Any) -> dict[str, Any]:
        """Return the arguments of ``from_pretrained``.

        Raises:
            ModelError: the model is of no known family.
        """
        if not family.blocks:
            raise ModelError(
                f"{self.setting} must know the blocks before a model is loaded, and {family.name!r} is in no known "
                'family; set model.trunk_weights = "memory"'
            )
        with torch.device("meta"):
            skeleton = reference(config)
        # Lives as long as the process: blocks may have to be read from it until the end.
        written = tempfile.TemporaryDirectory(prefix="sflam-weights-")
        _KEPT.append(written)
        placed = dict(self._placed(skeleton, "", family.path.split(".")))
        return {"device_map": placed, "offload_folder": written.name}

    def _placed(self, module: nn.Module, name: str, path: list[str]) -> Iterator[tuple[str, str]]:
        """Yield every part of a model, down to the single blocks, and where it goes."""
        own = {*module._parameters, *module._buffers}
        for key in own:
            yield f"{name}{key}", str(self.device)
        for key, child in module.named_children():
            if path and key == path[0]:
                yield from self._placed(child, f"{name}{key}.", path[1:])
            elif not path and int(key) >= self.start:
                yield f"{name}{key}", "disk"
            else:
                yield f"{name}{key}", str(self.device)

    def stored(self, model: nn.Module, family: Family) -> dict[int, dict[str, StoredTensor]]:
        """Return block -> name inside it -> where it is stored, of a model just loaded; it is an ordinary model then.

        Its blocks have no weights, until something is put in their places.

        Raises:
            ModelError: weights of the blocks are in no file, as those that a checkpoint lacks.
        """
        index: dict[str, Any] = {}
        for module in model.modules():
            hook = getattr(module, "_hf_hook", None)
            for each in getattr(hook, "hooks", [hook]):
                weights = getattr(each, "weights_map", None)
                index |= getattr(getattr(weights, "dataset", None), "index", {})
        found: dict[int, dict[str, StoredTensor]] = {}
        for number, block in enumerate(blocks_of(model, family)):
            if number < self.start:
                continue
            names = [name for name, _ in block.named_parameters()]
            full = {name: f"{family.path}.{number}.{name}" for name in names}
            if lacking := [name for name in full.values() if name not in index]:
                raise ModelError(
                    f"{self.setting} reads blocks from the checkpoint's files, which lack {lacking[0]}; load a "
                    'complete checkpoint, or set model.trunk_weights = "memory"'
                )
            found[number] = {
                name: StoredTensor(index[own]["safetensors_file"], index[own]["weight_name"])
                for name, own in full.items()
            }
        remove_hook_from_submodules(model)
        return found


_KEPT: list[Any] = []
"""Folders that blocks are read from."""


def place(block: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
    """Put weights, name -> parameter, in their places in a block."""
    for name, weight in weights.items():
        parent, _, key = name.rpartition(".")
        block.get_submodule(parent)._parameters[key] = weight
