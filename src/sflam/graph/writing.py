"""Graphs and bundles as JSON; :mod:`sflam.graph.reading` reads it again."""

from __future__ import annotations

import json
from typing import Any

from sflam.graph.bundle import Binding, Bundle, Piece
from sflam.graph.graph import Attribute, Graph
from sflam.graph.size import Size


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Return a graph as plain data."""
    return {
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "weights": sorted(graph.weights),
        "values": {
            name: [value.numbers, [size.to_json() for size in value.shape]]
            for name, value in graph.values.items()
        },
        "operations": [
            [
                operation.kind,
                list(operation.inputs),
                list(operation.outputs),
                {key: _attribute(value) for key, value in operation.attributes.items()},
            ]
            for operation in graph.operations
        ],
    }


def bundle_to_json(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle as plain data."""
    plain = ("version", "cut", "dim", "text", "tokens", "task", "dtype")
    return {
        **{name: getattr(bundle, name) for name in plain},
        "trained": {name: list(shape) for name, shape in bundle.trained.items()},
        "embed": _piece(bundle.embed),
        "kinds": [
            {
                "forward": graph_to_json(kind.forward),
                "joint": None if kind.joint is None else graph_to_json(kind.joint),
            }
            for kind in bundle.kinds
        ],
        "blocks": [{"kind": block.kind, **_binding(block.binding)} for block in bundle.blocks],
        "head": None if bundle.head is None else _piece(bundle.head),
    }


def write_bundle(bundle: Bundle) -> bytes:
    """Return the file of a bundle."""
    return json.dumps(bundle_to_json(bundle), separators=(",", ":"), allow_nan=False).encode()


def _piece(piece: Piece) -> dict[str, Any]:
    return {"graph": graph_to_json(piece.graph), **_binding(piece.binding)}


def _binding(binding: Binding) -> dict[str, Any]:
    return {
        side: {name: [s.role, s.name] if s.name else [s.role] for name, s in sources.items()}
        for side, sources in (("inputs", binding.inputs), ("outputs", binding.outputs))
    }


def _attribute(value: Attribute) -> Any:
    if isinstance(value, tuple):
        return [_attribute(each) for each in value]
    return value.to_json() if isinstance(value, Size) else value
