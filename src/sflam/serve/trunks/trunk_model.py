"""A trunk server's side of a job: its description, checked, and the trunks built from what the coordinator sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from sflam import config
from sflam.config import Job
from sflam.errors import ServeError
from sflam.files import from_json, replace_file, writing
from sflam.learn.device import Devices
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.edge_servers import Servers
from sflam.learn.exchange import Exchange
from sflam.learn.halves import halves, weigh
from sflam.learn.selection import chances_of
from sflam.learn.weighting import expected_rows, weighting_of
from sflam.link.contract import PROTOCOL, Contract
from sflam.link.https_client import LARGEST, Link
from sflam.link.job import ELSEWHERE, NAME, expect_no_links, expect_plugins, fetch
from sflam.model.adapters import attach
from sflam.model.export import backbone_from, put_adapters
from sflam.model.families import CAUSAL
from sflam.model.layout import layout_from
from sflam.plan import Placement
from sflam.run.job_model import torch_device
from sflam.serve.trunks.trunk_job import CONTRACTS, WEIGHTS


@dataclass(frozen=True, eq=False)
class TrunkModel:
    """The trunks of a job in this process.

    Attributes:
        job: its settings.
        devices: the device halves, of which nothing is run here.
        servers: the trunks, of all servers.
        exchange: how bodies become tensors.
        contracts: what was agreed with each device.
        placements: of each device.
        cut: returns both halves, cut for placements.
    """

    job: Job
    devices: Devices
    servers: Servers
    exchange: Exchange
    contracts: Mapping[int, Contract]
    placements: tuple[Placement, ...]
    cut: Callable[[Sequence[Placement]], tuple[Devices, Servers]]

    def at(self, server_of: Sequence[int]) -> TrunkModel:
        """Return the trunks with the devices at these servers: themselves, where they are there."""
        if self.servers.server_of == tuple(server_of):
            return self
        pairs = zip(self.placements, server_of, strict=True)
        placements = tuple(replace(placement, server=server) for placement, server in pairs)
        devices, servers = self.cut(placements)
        return replace(self, devices=devices, servers=servers, placements=placements)

    def weigh(self, present: Sequence[int], samples: Mapping[int, int]) -> None:
        """Weight the devices of a round at their servers, as :meth:`LocalFleet.weigh` does."""
        chance = chances_of(self.job.fleet, samples)
        how = partial(weighting_of, self.job.learn, self.job.sampling)
        weigh(self.devices, self.servers, present, samples, how, chance)
        self.servers.expect(expected_rows(self.job.learn, self.job.sampling, samples))


def described_trunk(link: Link, plugins: Sequence[str]) -> dict[str, Any]:
    """Return what the coordinator says of its job.

    Raises:
        ServeError: it speaks another protocol, or the job needs plug-ins that are not among these.
    """
    found = link.json("GET", "/v1/trunk/job")
    if not isinstance(found, dict) or found.get("protocol") != PROTOCOL:
        theirs = found if isinstance(found, dict) else {}
        raise ServeError(
            f"the coordinator (sflam {str(theirs.get('version', 'of another kind'))[:30]}) speaks protocol "
            f"{str(theirs.get('protocol', 'unknown'))[:10]}, this trunk server (sflam {version('sflam')}) {PROTOCOL}; "
            "use the same version of sflam on both sides"
        )
    expect_plugins(found.get("plugins", []), plugins)
    return found


def load_trunks(link: Link, found: Mapping[str, Any], folder: Path, device: str) -> TrunkModel:
    """Return the trunks of a described job, whose files are fetched to ``folder`` where they are not there yet.

    Raises:
        SflamError: they cannot be fetched, or are not what was announced.
    """
    cache = folder / "model"
    try:
        files = {str(name): str(seal) for name, seal in found["files"].items()}
        sizes = {str(name): int(size) for name, size in found["sizes"].items()}
        text, task, depth = str(found["job"]), str(found["task"]), int(found["depth"])
        fresh, scheme = tuple(map(str, found["fresh"])), str(found["scheme"])
        if odd := [name for name in files if not NAME.fullmatch(name)]:
            raise ValueError(f"a file {odd[0][:60]!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServeError(
            f"the coordinator's description of the job lacks {error}; use the same version on both sides"
        ) from error
    with writing(folder, ELSEWHERE, ServeError):
        cache.mkdir(parents=True, exist_ok=True)
        expect_no_links(folder)
        replace_file(folder / "job.toml", text.encode())
    job = config.load(folder / "job.toml", run_plugins=False)
    for name, seal in files.items():
        fetch(link, cache, name, seal, most=sizes.get(name, LARGEST), at="/v1/trunk/files")
    job = replace(job, model=replace(job.model, name=str(cache), adapter=""))
    if job.learn.canonical:
        torch.set_num_threads(1)
    try:
        tensors = safetensors.torch.load_file(str(cache / WEIGHTS))
        contracts = [Contract(**each) for each in from_json((cache / CONTRACTS).read_bytes())]
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise ServeError(f"the model in {cache} cannot be read ({error}); delete the folder") from error
    backbone = backbone_from(
        str(cache),
        tensors,
        task=task,
        dtype=job.model.dtype,
        fresh=fresh,
        cut=depth,
        labels="device",
        device=torch_device(device),
        layout=layout_from(found.get("layout")),
    )
    model = attach(backbone, job.model, seed=job.seed)
    put_adapters(model, tensors)
    cut = partial(
        halves,
        backbone,
        model,
        learn=job.learn,
        labels=job.model.labels,
        sampling=job.sampling,
        ranks=DeviceRanks(job.fleet.ranks),
        seats=job.fleet.asked,
    )
    devices, servers = cut(job.placements)
    exchange = Exchange(scheme, job.seed, per_token=task == CAUSAL)
    exchange = exchange.with_bits({placement.device: placement.bits for placement in job.placements})
    if [contract.device for contract in contracts] != list(range(len(job.placements))):
        raise ServeError(f"the coordinator's job has {len(job.placements)} devices, and agreed with others")
    agreed = dict(enumerate(contracts))
    return TrunkModel(job, devices, servers, exchange, agreed, tuple(job.placements), cut)
