"""What a coordinator gives its trunk servers of a job: the settings, the frozen model, and what is agreed with devices.

A trunk server holds the whole frozen model, of which it runs the blocks behind its devices' cuts. What is trained
comes with every round, and no data ever does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch

from sflam.config import to_toml
from sflam.files import remove_leftovers, replace_file
from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import PROTOCOL, Contract
from sflam.link.job import job_digest
from sflam.model.backbone import quiet
from sflam.model.export import device_tensors
from sflam.model.structure import layout_of
from sflam.plugins import portable
from sflam.run.assemble import Assembly

WEIGHTS, CONTRACTS = "trunk.safetensors", "contracts.json"
NOT_SENT = ("network", "plan", "repartition")
"""Sections of a job that trunk servers have no use for. ``[association]`` goes along where it is set: one of a version
that does not know it would serve devices by the servers of the start."""


def trunk_files(
    assembly: Assembly, local: LocalFleet, folder: Path, contracts: Mapping[int, Contract]
) -> dict[str, Path]:
    """Write what trunk servers download into ``folder``; return name -> path."""
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    backbone = assembly.backbone
    with quiet():
        backbone.model.config.save_pretrained(str(folder))
    frozen_a = assembly.job.learn.practice.aggregation == "freeze-a"
    tensors = device_tensors(backbone, assembly.model, backbone.depth, "device", frozen_a=frozen_a)
    safetensors.torch.save_file(tensors, str(folder / WEIGHTS))
    agreed = json.dumps([asdict(contracts[device]) for device in sorted(contracts)])
    replace_file(folder / CONTRACTS, agreed.encode())
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


def describe_trunk(
    assembly: Assembly,
    local: LocalFleet,
    run: str,
    files: Mapping[str, Path],
    patience: float,
    silence: float,
) -> dict[str, Any]:
    """Return what a trunk server must know to take part; of the coordinator's paths and its data nothing."""
    job, backbone = assembly.job, assembly.backbone
    sent = replace(
        job,
        plugins=(),  # a trunk server loads what its own user names
        model=replace(job.model, name="served", adapter=""),
        data=replace(job.data, name=Path(job.data.name).name, indices=Path(job.data.indices).name),
        learn=replace(job.learn, device="auto"),
        fleet=replace(job.fleet, plan=""),
    )
    layout = layout_of(backbone.family, backbone.task)
    seals = {}
    for name, path in files.items():
        with path.open("rb") as file:
            seals[name] = hashlib.file_digest(file, "sha256").hexdigest()
    found = {
        "protocol": PROTOCOL,
        "version": version("sflam"),
        "run": run,
        "task": backbone.task,
        "depth": backbone.depth,
        "fresh": list(backbone.fresh),
        "scheme": local.exchange.scheme,
        "layout": None if layout is None else layout.as_json(),
        "files": seals,
        "sizes": {name: path.stat().st_size for name, path in files.items()},
        "patience": patience,
        "silence": silence,
        "job": to_toml(sent, without=NOT_SENT),
        "plugins": [portable(name) for name in job.plugins],
    }
    return found | {"digest": job_digest(found)}
