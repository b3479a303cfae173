"""The graphs that a server offers to devices without torch: one file per cut, compared with torch, or a reason."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sflam.config import Job
from sflam.errors import GraphError, SflamError
from sflam.files import replace_file
from sflam.graph.bundle import Bundle
from sflam.graph.writing import write_bundle
from sflam.learn.split_fleet import LocalFleet
from sflam.model.device_graphs import DeviceHalf, bundle_of, device_half, shortened
from sflam.model.families import CAUSAL
from sflam.model.graph_check import expect_equal, frozen_tensors
from sflam.model.kept_token import FIRST, LAST, kept_token
from sflam.model.tuned import tuned_blocks
from sflam.run.assemble import Assembly
from sflam.serve.repartition import cuts_allowed

KEPT = 8


@dataclass(frozen=True, order=True, kw_only=True)
class HalfKind:
    """What halves differ by.

    Attributes:
        rank: of the adapters, where devices have their own; else 0.
        tuned: blocks with adapters, as ``model.tuned``, where devices have their own; else 0.
        cut: blocks of it.
    """

    rank: int = 0
    tuned: int = 0
    cut: int

    def __str__(self) -> str:
        """The name of its files, before the dot."""
        rank, tuned = f"-rank-{self.rank}" * bool(self.rank), f"-tuned-{self.tuned}" * bool(self.tuned)
        return f"cut-{self.cut}{rank}{tuned}"


@dataclass(frozen=True)
class GraphOffer:
    """What devices without torch are offered.

    Attributes:
        files: kind of half -> name and SHA-256 of the graphs' file.
        refused: why there is none; empty where there are.
    """

    files: Mapping[HalfKind, Mapping[str, str]] = field(default_factory=dict)
    refused: str = ""

    def described(self, kind: HalfKind) -> dict[str, Any]:
        """Return the entries of ``/v1/job`` for a device with such a half."""
        return {"graphs": self.files.get(kind), "graphs_refused": self.refused or None}


def kind_of(job: Job, local: LocalFleet, device: int, cut: int) -> HalfKind:
    """Return the kind of half of a device that keeps ``cut`` blocks."""
    rank = job.fleet.ranks[device] if job.fleet.ranks else 0
    return HalfKind(rank=rank, tuned=local.placements[device].tuned, cut=cut)


def offered_kinds(job: Job, local: LocalFleet) -> list[list[HalfKind]]:
    """Return every kind of half that each device may have: where cuts move, one for each cut that it may get."""
    if not job.repartition.moves:
        return [[kind_of(job, local, device, cut)] for device, cut in enumerate(local.devices.cuts)]
    allowed = cuts_allowed(job)
    return [[kind_of(job, local, device, cut) for cut in cuts] for device, cuts in enumerate(allowed)]


def graphs_name(kind: HalfKind) -> str:
    """Return the name of the file with a device's graphs."""
    return f"{kind}.graphs.json"


def offer_graphs(assembly: Assembly, local: LocalFleet, folder: Path, tokens: int) -> GraphOffer:
    """Write the graphs of every kind of half in use into ``folder``, after comparing them with torch.

    Args:
        assembly: the job, assembled.
        local: its halves.
        folder: where devices download from.
        tokens: of an image, or the most of a text.
    """
    for path in folder.glob("cut-*.graphs.json"):
        path.unlink()
    # The deepest of a rank and of tuned blocks comes first: the others are part of it.
    kinds = sorted({kind for own in offered_kinds(assembly.job, local) for kind in own}, reverse=True)
    files: dict[HalfKind, dict[str, str]] = {}
    bundles: dict[tuple[int, int], Bundle] = {}
    try:
        for kind in kinds:
            bundle = bundles.get((kind.rank, kind.tuned))
            if bundle is None:
                bundle, _, _ = compared(assembly, kind, tokens)
                bundles[kind.rank, kind.tuned] = bundle
            body = write_bundle(bundle if kind.cut == bundle.cut else shortened(bundle, kind.cut))
            name = graphs_name(kind)
            replace_file(folder / name, body)
            files[kind] = {"name": name, "sha256": hashlib.sha256(body).hexdigest()}
    except SflamError as error:
        return GraphOffer(refused=str(error))
    return GraphOffer(files)


def compared(assembly: Assembly, kind: HalfKind, tokens: int) -> tuple[Bundle, DeviceHalf, Mapping[str, Any]]:
    """Return the graphs of a kind of half after comparing them with torch, what they are of, and its frozen tensors.

    Raises:
        GraphError: the half cannot become graphs, or they differ from torch.
        ModelError: the model's parts cannot be sent.
    """
    job, backbone, model = assembly.job, assembly.backbone, assembly.model
    if job.learn.loss not in BUILT_IN_LOSSES and job.model.labels == "device":
        raise GraphError(f"learn.loss is {job.learn.loss!r}, a plugin's own; graphs know the built-in losses")
    if job.data.answer:
        raise GraphError("data.answer names answers to prompts; a device without torch learns whole texts")
    if job.privacy.drop_tokens:
        reads = kept_token(backbone.family.name, per_token=backbone.task == CAUSAL)
        if reads != FIRST and (reads == LAST or job.model.labels == "device"):
            raise GraphError(
                f"privacy.drop_tokens = {job.privacy.drop_tokens:g}, and the head of this model reads the {reads} of "
                "the tokens; a device without torch keeps the first alone"
            )
    half = device_half(
        backbone,
        model,
        kind.cut,
        labels=job.model.labels,
        tokens=tokens,
        learn=job.learn,
        rank=kind.rank,
        tuned=tuned_blocks(kind.tuned, backbone.depth) if kind.tuned else None,
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
