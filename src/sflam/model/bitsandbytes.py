"""A frozen trunk kept in 8 or 4 bits: options for loading a model through the bitsandbytes library.

Only the linear layers of the server's blocks are quantized; embeddings, the devices' blocks, norms and heads stay as
they are, and so do adapters. Activations are computed in the model's own precision.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from sflam.errors import ModelError
from sflam.model.families import Family


@dataclass(frozen=True)
class TrunkBits:
    """How the server's frozen weights are kept.

    Attributes:
        bits: 8 or 4.
        cut: the first block that no device keeps.
        device: where the model is loaded to; it cannot be moved afterwards.
    """

    bits: int
    cut: int
    device: torch.device

    def options(self, family: Family, task: str, dtype: torch.dtype) -> dict[str, Any]:
        """Return the arguments of ``from_pretrained``.

        Raises:
            ModelError: the library is missing or does not load, or the model is of no known family.
        """
        asked = f"model.trunk_bits = {self.bits}"
        if not family.blocks:
            raise ModelError(
                f"{asked} must know the blocks before a model is loaded, and {family.name!r} is in no known family; "
                "set model.trunk_bits = 0"
            )
        try:
            importlib.import_module("bitsandbytes")
        except ImportError as error:
            raise ModelError(
                f"{asked} needs the library bitsandbytes ({error}): pip install 'sflam[quantized]', or set "
                "model.trunk_bits = 0"
            ) from error
        except Exception as error:  # a library built for other hardware may raise anything
            raise self.refusal(error) from error
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every cast to half precision
        parts = [family.full(name) for name in (*family.front, *family.both, *family.back)]
        kept = [*parts, *family.tasks[task].head, *(f"{family.path}.{index}" for index in range(self.cut))]
        chosen: dict[str, Any] = {"load_in_8bit": True}
        if self.bits == 4:
            chosen = {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_compute_dtype": dtype,
            }
        settings = cast(Any, BitsAndBytesConfig)(**chosen, llm_int8_skip_modules=kept)
        return {"quantization_config": settings, "device_map": {"": self.device}}

    def settled(self, model: nn.Module) -> None:
        """Let 8-bit layers take their weights apart now, as they would in their first pass: copies share the result."""
        for module in model.modules():
            layer = cast(Any, module)
            if hasattr(layer, "init_8bit_state") and layer.weight.CB is not None:
                layer.init_8bit_state()

    def refusal(self, error: BaseException) -> ModelError:
        """Return the error for a machine on which the library does not work."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ModelError(
            f"model.trunk_bits = {self.bits} cannot be had on this machine with learn.device = {self.device.type!r} "
            f"({reason}); set model.trunk_bits = 0"
        )
