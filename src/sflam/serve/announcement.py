"""What a device gets of a job: its settings, the files with its part of the model, and what they take of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch

from sflam.config import Job, to_toml
from sflam.files import remove_leftovers
from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import PROTOCOL, Contract
from sflam.model.backbone import quiet
from sflam.model.compact import compact
from sflam.model.export import device_tensors
from sflam.model.settings import IN_MEMORY, ModelSettings
from sflam.model.structure import layout_of
from sflam.plugins import portable
from sflam.run.assemble import Assembly, save_preprocessing
from sflam.serve.graph_offer import GraphOffer, HalfKind, kind_of, offered_kinds
from sflam.serve.repartition import Repartition

NOT_SENT = ("network", "plan", "repartition", "association")
"""Sections of a job that devices have no use for: they plan nothing, and one of an older version may not know a key."""
OWN_FILES = ("attempt", "run.id", "plan.json", "cuts.json", "association.json", "trunk")
"""Files, and a folder, beside those of devices that are the server's own."""


def bundle(assembly: Assembly, local: LocalFleet, folder: Path) -> dict[str, str]:
    """Write what devices download into ``folder``; return name -> SHA-256.

    One safetensors file per kind of half, the model's config, and what turns raw samples into its inputs.
    """
    backbone, job = assembly.backbone, assembly.job
    remove_leftovers(folder)  # of a server that was killed as it wrote a file of its own
    with quiet():
        backbone.model.config.save_pretrained(str(folder))
    save_preprocessing(assembly, folder)
    offered = enumerate(offered_kinds(job, local))
    parts = {segment_name(kind): (kind, device) for device, kinds in offered for kind in kinds}
    for name, (kind, device) in sorted(parts.items()):
        tensors = device_tensors(
            backbone,
            assembly.model,
            kind.cut,
            job.model.labels,
            frozen_a=job.learn.practice.aggregation == "freeze-a",
            frozen_half=job.learn.practice.device_half == "frozen",
            tuned=local.devices.segment.blocks_of(device),
        )
        own = local.ranks.own(device, tensors, list(tensors))
        safetensors.torch.save_file(compact(own, job.device.weights), str(folder / name))
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in OWN_FILES and ".graphs." not in path.name:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def settings_sent(job: Job) -> Job:
    """Return what a device is given of a job's settings: no path on the server, and no other device's share."""
    return replace(
        job,
        plugins=(),  # a device loads what its own user names
        model=replace(job.model, name="served", adapter="", trunk_bits=0, trunk_weights=IN_MEMORY),
        data=replace(job.data, name=Path(job.data.name).name, indices=Path(job.data.indices).name),
        learn=replace(job.learn, device="auto"),
        fleet=replace(job.fleet, cuts=(), bits_up=(), bits_down=(), ranks=(), tuned=(), plan=""),
    )


def segment_name(kind: HalfKind) -> str:
    """Return the name of the file with the device's part of the model."""
    return f"{kind}.safetensors"


def model_of(model: ModelSettings, kind: HalfKind) -> ModelSettings:
    """Return ``[model]`` of a device: its own rank, with the factor alpha / r that all have in common, and blocks."""
    if kind.tuned:
        model = replace(model, tuned=kind.tuned)
    if kind.rank:
        return replace(model, rank=kind.rank, alpha=model.alpha * kind.rank / model.rank)
    return model


def describe(
    assembly: Assembly,
    local: LocalFleet,
    run: str,
    files: dict[str, str],
    offer: GraphOffer,
    announced: Callable[[int, Sequence[str]], dict[str, Any]] = lambda device, names: {},
) -> Callable[[int], dict[str, Any]]:
    """Return the function that describes the job to a device."""
    job, backbone = assembly.job, assembly.backbone
    sent = settings_sent(job)
    parts = {segment_name(kind) for kinds in offered_kinds(job, local) for kind in kinds}
    layout = layout_of(backbone.family, backbone.task)

    def description(device: int) -> dict[str, Any]:
        kind = kind_of(job, local, device, local.devices.cuts[device])
        part = segment_name(kind)
        own = replace(sent, model=model_of(sent.model, kind))
        needed = {n: h for n, h in files.items() if n not in parts or n == part}
        graphs = offer.described(kind)
        return announced(device, [*needed, *filter(None, [(graphs["graphs"] or {}).get("name")])]) | {
            "protocol": PROTOCOL,
            "version": version("sflam"),
            "run": run,
            "device": device,
            "cut": kind.cut,
            "bits": list(local.exchange.bits[device]),
            "task": backbone.task,
            "classes": list(assembly.splits.train.classes),
            "fresh": list(backbone.fresh),
            "bits_adapters": local.adapters.bits,
            "scheme": local.exchange.scheme,
            **({} if layout is None else {"layout": layout.as_json()}),
            "segment": part,
            "files": needed,
            **graphs,
            "job": to_toml(own, without=NOT_SENT),
            "plugins": [portable(name) for name in job.plugins],
        }

    return description


def announcement(
    folder: Path,
    contracts: Mapping[int, Contract],
    cuts: Repartition | None,
    device: int,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return what a job takes of a device, which it compares with its own limits before it fetches anything.

    Where its cut was moved, also how often: what it keeps from before is of another half.
    """
    contract, moved = contracts[device], cuts.moved(device) if cuts else 0
    return ({"moved": moved} if moved else {}) | {
        "sizes": {name: (folder / name).stat().st_size for name in names},
        "trained": contract.adapters,
        "body": contract.largest(),
        "dim": contract.dim,
    }
