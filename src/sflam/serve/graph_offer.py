"""The graphs that a server offers to devices without torch: one file per cut, compared with torch, or a reason."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sflam.errors import GraphError, SflamError
from sflam.files import replace_file
from sflam.graph.bundle import Bundle
from sflam.graph.writing import write_bundle
from sflam.learn.split_fleet import LocalFleet
from sflam.model.device_graphs import DeviceHalf, bundle_of, device_half, shortened
from sflam.model.graph_check import expect_equal, frozen_tensors
from sflam.run.assemble import Assembly

KEPT = 8


@dataclass(frozen=True)
class GraphOffer:
    """What devices without torch are offered.

    Attributes:
        files: cut and rank (0 where all have the model's) -> name and SHA-256 of the graphs' file.
        refused: why there is none; empty where there are.
    """

    files: Mapping[tuple[int, int], Mapping[str, str]] = field(default_factory=dict)
    refused: str = ""

    def described(self, cut: int, rank: int = 0) -> dict[str, Any]:
        """Return the entries of ``/v1/job`` for a device cut at ``cut``; ``rank`` where devices have their own."""
        return {"graphs": self.files.get((cut, rank)), "graphs_refused": self.refused or None}


def graphs_name(cut: int, rank: int = 0) -> str:
    """Return the name of the file with a device's graphs; ``rank`` where devices have their own."""
    return f"cut-{cut}-rank-{rank}.graphs.json" if rank else f"cut-{cut}.graphs.json"


def offer_graphs(assembly: Assembly, local: LocalFleet, folder: Path, tokens: int) -> GraphOffer:
    """Write the graphs of every cut and rank in use into ``folder``, after comparing them with torch.

    Args:
        assembly: the job, assembled.
        local: its halves.
        folder: where devices download from.
        tokens: of an image, or the most of a text.
    """
    for path in folder.glob("cut-*.graphs.json"):
        path.unlink()
    ranks = assembly.job.fleet.ranks or (0,) * len(local.devices.cuts)
    # The deepest of a rank comes first: the others are part of it.
    kinds = sorted(set(zip(ranks, local.devices.cuts, strict=True)), reverse=True)
    files: dict[tuple[int, int], dict[str, str]] = {}
    bundles: dict[int, Bundle] = {}
    try:
        for rank, cut in kinds:
            bundle = bundles.get(rank)
            if bundle is None:
                bundle, _, _ = compared(assembly, cut, tokens, rank)
                bundles[rank] = bundle
            body = write_bundle(bundle if cut == bundle.cut else shortened(bundle, cut))
            name = graphs_name(cut, rank)
            replace_file(folder / name, body)
            files[cut, rank] = {"name": name, "sha256": hashlib.sha256(body).hexdigest()}
    except SflamError as error:
        return GraphOffer(refused=str(error))
    return GraphOffer(files)


def compared(
    assembly: Assembly, cut: int, tokens: int, rank: int = 0
) -> tuple[Bundle, DeviceHalf, Mapping[str, Any]]:
    """Return the graphs of a cut after comparing them with torch, what they are of, and its frozen tensors.

    With ``rank`` they are of a device whose adapters have that rank.

    Raises:
        GraphError: the half cannot become graphs, or they differ from torch.
        ModelError: the model's parts cannot be sent.
    """
    job, backbone, model = assembly.job, assembly.backbone, assembly.model
    if job.learn.loss not in BUILT_IN_LOSSES and job.model.labels == "device":
        raise GraphError(f"learn.loss is {job.learn.loss!r}, a plugin's own; graphs know the built-in losses")
    half = device_half(
        backbone, model, cut, labels=job.model.labels, tokens=tokens, learn=job.learn, rank=rank
    )
    key = _key(half)
    if key not in _traced:
        _traced[key] = bundle_of(half)
        while len(_traced) > KEPT:
            _traced.popitem(last=False)
    tensors = frozen_tensors(half, model)
    expect_equal(_traced[key], half, tensors)
    return _traced[key], half, tensors


BUILT_IN_LOSSES = ("cross-entropy", "label-smoothing", "focal")

_traced: OrderedDict[str, Bundle] = OrderedDict()
"""Graphs of halves alike in all but their numbers, traced once a process."""


def _key(half: DeviceHalf) -> str:
    """Return what the graphs of a half hang on."""
    segment, model = half.segment, half.backbone.model
    stack = [(name, tuple(slot.shape)) for name, slot in segment.stack.slots.items()]
    held = [(name, tuple(tensor.shape)) for name, tensor in model.named_parameters()]
    dropped = [
        (n, m.dropout) for n, m in segment.named_modules() if isinstance(getattr(m, "dropout", None), float)
    ]
    scaled = [
        (n, m.scaling) for n, m in segment.named_modules() if isinstance(getattr(m, "scaling", None), float)
    ]
    learn, family = half.learn, half.backbone.family.name
    loss = (learn.loss, learn.smoothing, learn.focal_gamma) if segment.has_head else ()
    place = (type(model).__name__, family, half.cut, half.tokens, str(model.dtype), half.backbone.task)
    return repr(
        (place, segment.training, segment.has_head, stack, held, dropped, scaled, loss, str(model.config))
    )
