"""A whole model as one ONNX file, compared with torch before it is offered.

Any number of rows, and for texts any number of tokens, go through the file. Source: the exporter of
``torch.onnx`` (over ``torch.export``); the comparison runs in ONNX Runtime.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sflam.errors import ModelError
from sflam.model.dummy_inputs import make_inputs, with_mask
from sflam.model.families import CAUSAL

TOLERANCE = 1e-4
"""The largest difference of a logit from torch's, relative to the largest logit, of a file that is offered."""
SHAPES = ((1, 11), (2, 7), (5, 12))
"""Rows, and tokens of a text, of the batches that are compared; the file is traced with others."""


class _Logits(nn.Module):
    """A model as a function of named tensors."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits."""
        out: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).logits
        return out


def write_onnx(model: Any, task: str, path: Path, facts: Mapping[str, str]) -> float:
    """Write a merged model to an ONNX file of float32, and return the largest difference of its logits from torch's.

    Inputs are ``pixel_values`` [B,C,H,W], or ``input_ids`` [B,T] and ``attention_mask`` [B,T] (right-padded rows);
    the output is ``logits`` [B,classes], or [B,T,V] of a language model. The model is left in evaluation mode.

    Args:
        model: a Hugging Face model without adapters, on the CPU.
        task: key of the family's tasks.
        path: the file.
        facts: what the file says of itself, name -> text.

    Raises:
        ModelError: the exporter cannot express the model, or the file does not compute what torch computes.
        ModuleNotFoundError: the libraries of the extra ``onnx`` are not installed.
    """
    import onnxruntime  # type: ignore[import-untyped]
    import onnxscript  # noqa: F401  (what the exporter needs, missed here and not within it)

    model.eval()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation(
            "eager"
        )  # masks of the fused kernels are made by code that is not traced
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False  # nothing but logits goes out
    inputs = _inputs(model, task, seed=0, rows=3, tokens=10)
    names = tuple(inputs)
    rows = torch.export.Dim("rows", min=1, max=65536)
    tokens = torch.export.Dim("tokens", min=1, max=_longest(model))
    shapes = tuple({0: rows} if name == "pixel_values" else {0: rows, 1: tokens} for name in names)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Logits(model, names).eval(),
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=names,
                output_names=["logits"],
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update(facts)
            program.save(str(path), external_data=False)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (
        Exception
    ) as error:  # the exporter and the runtime raise whatever they like on what they do not know
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps them in pages of advice
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise ModelError(f"{type(model).__name__} cannot be written as ONNX: {reason}") from error
    found = max(
        _difference(session, model, task, _inputs(model, task, seed=rows, rows=rows, tokens=tokens))
        for rows, tokens in SHAPES
    )
    if not found <= TOLERANCE:
        path.unlink()
        raise ModelError(
            f"the ONNX file of {type(model).__name__} differs from torch by {found:.1e} of the largest logit, more "
            f"than {TOLERANCE:.0e}; it was not kept"
        )
    return found


def _difference(session: Any, model: Any, task: str, inputs: Mapping[str, Tensor]) -> float:
    """Return the largest difference of logits that count, relative to the largest."""
    with torch.no_grad():
        expected = model(**inputs).logits.float().numpy()
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    if task == CAUSAL:  # what stands at padded places is read nowhere
        counts = inputs["attention_mask"].numpy().astype(bool)
        expected, found = expected[counts], found[counts]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _inputs(model: Any, task: str, *, seed: int, rows: int, tokens: int) -> dict[str, Tensor]:
    """Return random inputs of so many rows; texts are of unlike lengths, at most ``tokens``."""
    made, lengths, _ = make_inputs(model, task, torch.Generator().manual_seed(seed))
    found = with_mask(made, lengths)
    return {
        name: torch.cat([tensor, tensor])[:rows]
        if lengths is None
        else torch.cat([tensor, tensor])[:rows, :tokens]
        for name, tensor in found.items()
    }


def _longest(model: Any) -> int:
    """Return the most tokens of a text."""
    return int(
        getattr(model.config, "max_position_embeddings", 0) or getattr(model.config, "n_positions", 0) or 4096
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's list of operators that it passes over."""
    held = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(held)
