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
from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import PROTOCOL, Contract
from sflam.model.backbone import quiet
from sflam.model.compact import compact
from sflam.model.export import device_tensors
from sflam.model.settings import ModelSettings
from sflam.model.structure import layout_of
from sflam.plugins import portable
from sflam.run.assemble import Assembly, save_preprocessing
from sflam.serve.graph_offer import GraphOffer


def bundle(assembly: Assembly, local: LocalFleet, folder: Path) -> dict[str, str]:
    """Write what devices download into ``folder``; return name -> SHA-256.

    One safetensors file per cut and rank, the model's config, and what turns raw samples into its inputs.
    """
    backbone, job = assembly.backbone, assembly.job
    with quiet():
        backbone.model.config.save_pretrained(str(folder))
    save_preprocessing(assembly, folder)
    parts = {
        segment_name(cut, rank_of(job, device)): (cut, device)
        for device, cut in enumerate(local.devices.cuts)
    }
    for name, (cut, device) in sorted(parts.items()):
        tensors = device_tensors(
            backbone,
            assembly.model,
            cut,
            job.model.labels,
            frozen_a=job.learn.practice.aggregation == "freeze-a",
            frozen_half=job.learn.practice.device_half == "frozen",
        )
        own = local.ranks.own(device, tensors, list(tensors))
        safetensors.torch.save_file(compact(own, job.device.weights), str(folder / name))
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in ("attempt", "run.id") and ".graphs." not in path.name:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def segment_name(cut: int, rank: int = 0) -> str:
    """Return the name of the file with the device's part of the model; ``rank`` where devices have their own."""
    return f"cut-{cut}-rank-{rank}.safetensors" if rank else f"cut-{cut}.safetensors"


def rank_of(job: Job, device: int) -> int:
    """Return the LoRA rank of a device; 0 where all have the model's."""
    return job.fleet.ranks[device] if job.fleet.ranks else 0


def model_of(job: Job, device: int) -> ModelSettings:
    """Return ``[model]`` for a device: of a rank of its own, with the factor alpha / r that all have in common."""
    model, rank = job.model, rank_of(job, device)
    return replace(model, rank=rank, alpha=model.alpha * rank / model.rank) if rank else model


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
    # Paths on the server are not sent.
    sent = replace(
        job,
        plugins=(),  # a device loads what its own user names
        model=replace(job.model, name="served", adapter="", trunk_bits=0),
        data=replace(job.data, name=Path(job.data.name).name, indices=Path(job.data.indices).name),
        learn=replace(job.learn, device="auto"),
        # A device knows its own share of the plan alone.
        fleet=replace(job.fleet, cuts=(), bits_up=(), bits_down=(), ranks=()),
    )
    parts = [segment_name(cut, rank_of(job, device)) for device, cut in enumerate(local.devices.cuts)]
    layout = layout_of(backbone.family, backbone.task)

    def description(device: int) -> dict[str, Any]:
        cut, part = local.devices.cuts[device], parts[device]
        own = replace(sent, model=model_of(replace(sent, fleet=job.fleet), device))
        needed = {n: h for n, h in files.items() if n not in parts or n == part}
        graphs = offer.described(cut, rank_of(job, device))
        return announced(device, [*needed, *filter(None, [(graphs["graphs"] or {}).get("name")])]) | {
            "protocol": PROTOCOL,
            "version": version("sflam"),
            "run": run,
            "device": device,
            "cut": cut,
            "bits": list(local.exchange.bits[device]),
            "task": backbone.task,
            "classes": list(assembly.splits.train.classes),
            "fresh": list(backbone.fresh),
            "scheme": local.exchange.scheme,
            **({} if layout is None else {"layout": layout.as_json()}),
            "segment": part,
            "files": needed,
            **graphs,
            "job": to_toml(own),
            "plugins": [portable(name) for name in job.plugins],
        }

    return description


def announcement(
    folder: Path, contracts: Mapping[int, Contract], device: int, names: Sequence[str]
) -> dict[str, Any]:
    """Return what a job takes of a device, which it compares with its own limits before it fetches anything."""
    contract = contracts[device]
    return {
        "sizes": {name: (folder / name).stat().st_size for name in names},
        "trained": contract.adapters,
        "body": contract.largest(),
        "dim": contract.dim,
    }
