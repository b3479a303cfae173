"""``sflam export``: all that a device of another make needs to run its half of a model, and vectors to test it by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.files import replace_file
from sflam.graph.bundle import Bundle
from sflam.graph.writing import write_bundle
from sflam.model.device_graphs import DeviceHalf
from sflam.model.graph_check import random_rows, run_bundle
from sflam.run.assemble import assemble
from sflam.serve.announcement import bundle as write_files
from sflam.serve.announcement import segment_name
from sflam.serve.contracts import tokens_of_rows
from sflam.serve.graph_offer import HalfKind, compared, graphs_name

N_OF_VECTORS = 2
SEED = 20260

Array = NDArray[Any]


@dataclass(frozen=True)
class DeviceExport:
    """What was written.

    Attributes:
        folder: where.
        files: their names.
        graphs: of the device half.
    """

    folder: Path
    files: tuple[str, ...]
    graphs: Bundle


def export_device(job: Job, cut: int, folder: Path) -> DeviceExport:
    """Write graphs, segment file, config and test vectors of a device cut at ``cut``; raises SflamError."""
    job = replace(job, model=replace(job.model, cut=cut), fleet=replace(job.fleet, cuts=(), tuned=()))
    assembly = assemble(job)
    local = assembly.halves
    if local is None:
        raise ConfigError(f"learn.method is {job.learn.method!r}, which has no cut; a device half needs one")
    folder.mkdir(parents=True, exist_ok=True)
    kind = HalfKind(cut=cut)
    graphs, half, tensors = compared(assembly, kind, tokens_of_rows(assembly)[0])
    write_files(assembly, local, folder)
    replace_file(folder / graphs_name(kind), write_bundle(graphs))
    arrays, operations = _vectors(graphs, half, {name: t.numpy() for name, t in tensors.items()})
    safetensors.numpy.save_file(arrays, folder / "vectors.safetensors")
    about = {"n": N_OF_VECTORS, "seed": SEED, "segment": segment_name(kind), "operations": operations}
    replace_file(folder / "vectors.json", json.dumps(about, indent=1).encode())
    return DeviceExport(folder, tuple(sorted(path.name for path in folder.iterdir())), graphs)


def _vectors(
    graphs: Bundle, half: DeviceHalf, held: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return arrays of one run, and of each kind's smallest operation in it, with the attributes of those."""
    smallest: dict[str, tuple[int, Any]] = {}

    def keep(
        kind: str, given: tuple[Array, ...], made: tuple[Array, ...], attributes: dict[str, Any]
    ) -> None:
        size = sum(array.size for array in (*given, *made))
        if kind not in smallest or size < smallest[kind][0]:
            smallest[kind] = size, (given, made, attributes)

    rows = random_rows(graphs, half, N_OF_VECTORS)
    found = run_bundle(graphs, half, held, rows, N_OF_VECTORS, keep=keep)
    arrays = {"run.sample": rows.sample, "run.labels": rows.labels, "run.gradient": rows.gradient}
    arrays |= {"run.share": np.asarray(rows.share, graphs.dtype)}
    arrays |= {f"run.trained.{name}": t.detach()[0].numpy() for name, t in half.segment.stack.tensors.items()}
    arrays |= {f"run.result.{name}": array for name, array in found.items()}
    operations = {}
    for kind, (_, (given, made, attributes)) in sorted(smallest.items()):
        names = (
            [f"{kind}.input.{at}" for at in range(len(given))],
            [f"{kind}.output.{at}" for at in range(len(made))],
        )
        arrays |= dict(zip((*names[0], *names[1]), (*given, *made), strict=True))
        operations[kind] = {"inputs": names[0], "outputs": names[1], "attributes": attributes}
    return {name: np.array(array, order="C", copy=True) for name, array in arrays.items()}, operations
