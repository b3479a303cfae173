"""The page's engine in node, asked line by line."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.graph.graph import Graph
from sflam.graph.writing import graph_to_json
from tests.web.node import packed_array

SCRIPT = Path(__file__).with_suffix(".mjs")
TYPES = {"float": np.float32, "int": np.float64, "bool": np.uint8}
"""What the page holds each kind of number in."""


class PageError(Exception):
    """One line that the engine refused something with."""


class NodeEngine:
    """One node process; see ``engine_process.mjs`` for what it answers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> NodeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def ask(self, ask: str, **given: Any) -> dict[str, Any]:
        """Return the answer, its arrays as NumPy's; raises PageError for one that is refused."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"ask": ask, **given}, default=_packed) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "node has ended"
        found: dict[str, Any] = json.loads(line, object_hook=_unpacked)
        assert "bug" not in found, found["bug"]
        if "error" in found:
            assert "\n" not in found["message"]
            raise PageError(f"{found['error']}: {found['message']}")
        return found

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, NDArray[Any]],
        n: int,
        *,
        seed: int = 0,
        first: int = 0,
        plain: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs of a graph in their shapes; ``plain`` runs it without WebAssembly."""
        given = {name: inputs[name].astype(TYPES[graph.values[name].numbers]) for name in graph.inputs}
        found = self.ask(
            "run",
            graph=json.dumps(graph_to_json(graph)),
            inputs=given,
            n=n,
            seed=str(seed),
            first=first,
            plain=plain,
        )
        shapes = {name: tuple(size.at(n) for size in graph.values[name].shape) for name in graph.outputs}
        assert list(found) == list(graph.outputs)
        return {name: array.reshape(shapes[name]) for name, array in found.items()}


def node_engine() -> Iterator[NodeEngine]:
    """Yield a process; a fixture's body."""
    with NodeEngine() as engine:
        yield engine


def text_of(body: bytes) -> str:
    """Return bytes as base 64."""
    return base64.b64encode(body).decode()


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return packed_array(value)
    raise TypeError(type(value))


def _unpacked(found: dict[str, Any]) -> Any:
    if found.keys() != {"array", "bytes"}:
        return found
    return np.frombuffer(base64.b64decode(found["bytes"]), found["array"])
