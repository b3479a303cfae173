"""Nested structures of dicts, lists, tuples, tensors and plain values, as bytes and back; nothing is pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from sflam.files import from_json

_LENGTH = 8


def packed(value: Any) -> bytes:
    """Return a nested structure as bytes: the length of its skeleton, the skeleton, its tensors by safetensors."""
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(skeleton_of(value, tensors, "value"), allow_nan=False).encode()
    return len(skeleton).to_bytes(_LENGTH, "little") + skeleton + safetensors.torch.save(tensors)


def unpacked(body: bytes) -> Any:
    """Return what :func:`packed` packed, its tensors on the CPU."""
    end = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    return restored(from_json(body[_LENGTH:end]), safetensors.torch.load(body[end:]))


def skeleton_of(value: Any, tensors: dict[str, torch.Tensor], place: str) -> Any:
    """Return ``value`` as JSON; tensors move to ``tensors``, and whatever JSON lacks is tagged."""
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)}:{place}"  # counted, since {"a.b": x} and {"a": {"b": x}} share a place
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r}; a checkpoint's keys are strings or integers")
        items = [[key, skeleton_of(inner, tensors, f"{place}.{key}")] for key, inner in value.items()]
        return {"dict": items}
    if type(value) in (list, tuple):
        items = [skeleton_of(inner, tensors, f"{place}.{index}") for index, inner in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if type(value) is float and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{place} is a {type(value).__name__}; a checkpoint holds tensors, plain values, lists and dicts"
    )


def restored(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the nested structure of a skeleton of :func:`skeleton_of`; raises ValueError for one that is none."""
    if isinstance(value, list):
        return [restored(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    [(tag, inner)] = value.items()
    match tag:
        case "tensor":
            return tensors[inner]
        case "dict":
            return {key: restored(item, tensors) for key, item in inner}
        case "tuple":
            return tuple(restored(item, tensors) for item in inner)
        case "float":
            return float(inner)
    raise ValueError(f"the skeleton holds an unknown {tag!r}")
