"""``sflam join``: this machine as a device of a served job. It downloads its part of the model and brings its data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from sflam import config
from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.partition import share_out
from sflam.data.settings import DataSettings
from sflam.data.sources import load as load_data
from sflam.errors import DataError, ServeError
from sflam.files import replace_file, writing
from sflam.learn.exchange import Exchange
from sflam.link.contract import PROTOCOL
from sflam.link.https_client import Link
from sflam.model.adapters import attach
from sflam.model.export import backbone_from, put_adapters
from sflam.model.families import CAUSAL
from sflam.model.split import DeviceSegment
from sflam.plugins import load_plugins, pin_of
from sflam.run.assemble import examples_of, preprocessor_of, torch_device
from sflam.serve.device import Client, Place

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def join(
    link: Link,
    data: str | None,
    folder: Path,
    *,
    column: str = "",
    label: str = "",
    device: str = "auto",
    plugins: Sequence[str] = (),
    notify: Callable[[str], None] = lambda line: None,
) -> int:
    """Take part in a served job until it ends; return the rounds trained.

    Args:
        link: the way to the server.
        data: a file, folder or named dataset of this device alone; None takes this device's share of the job's own
            data, as a simulation would give it.
        folder: keeps what was downloaded, and where this device is.
        column: array or column of the inputs; the job's by default.
        label: array or column of the labels; the job's by default.
        device: ``cpu``, ``cuda`` or ``auto``.
        plugins: plug-ins to load, see :mod:`sflam.plugins`. The server's word loads nothing: it only names what its job
            needs, and a device without just that does not take part.
        notify: shows a line to the user of the device.

    Raises:
        SflamError: whatever keeps it from taking part.
    """
    try:
        own = load_plugins(plugins)
        description = _described(link)
        try:
            expect_plugins(description.get("plugins", []), own)
            client = _client(link, description, data, folder, column, label, device, notify)
        except (KeyError, TypeError) as error:
            raise ServeError(
                f"the server's description of the job lacks {error}; use the same version on both sides"
            ) from error
        return client.run()
    finally:
        link.close()


def expect_plugins(named: Any, own: Sequence[str]) -> None:
    """Raise ServeError unless the plug-ins that a server's job names are among a device's own, with the same content.

    Args:
        named: names and hashes, as the server reports them.
        own: resolved names of those that the device loaded.
    """
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise ServeError("the server's list of plug-ins is malformed; use the same version on both sides")
    pins = {pin_of(name) for name in own}
    for name in named:
        if pin_of(name) in pins:
            continue
        file, _, pin = name[:200].partition("#")
        raise ServeError(
            f"the job needs the plug-in {file!r} ({pin[:19]}), and a device loads no code that a server names; get it "
            "from a source you trust, read it, and give it with --plugin"
        )


def _described(link: Link) -> dict[str, Any]:
    """Return the server's description of the job; raises ServeError where it speaks another protocol."""
    description = link.json("GET", "/v1/job")
    if not isinstance(description, dict) or description.get("protocol") != PROTOCOL:
        theirs = description if isinstance(description, dict) else {}
        raise ServeError(
            f"the server (sflam {str(theirs.get('version', 'of another kind'))[:30]}) speaks protocol "
            f"{str(theirs.get('protocol', 'unknown'))[:10]}, this device (sflam {version('sflam')}) {PROTOCOL}; use "
            "the same version of sflam on both sides"
        )
    return description


def _client(
    link: Link,
    description: dict[str, Any],
    data: str | None,
    folder: Path,
    column: str,
    label: str,
    device: str,
    notify: Callable[[str], None],
) -> Client:
    """Return the device, ready to take part."""
    cache = folder / "model"
    cache.mkdir(parents=True, exist_ok=True)
    for name, sha256 in description["files"].items():
        fetch(link, cache, str(name), str(sha256))
    replace_file(folder / "job.toml", str(description["job"]).encode())
    job = config.load(folder / "job.toml", run_plugins=False)
    where = torch_device(device)
    if job.learn.canonical:
        torch.set_num_threads(1)
    cut, labels = int(description["cut"]), job.model.labels
    job = replace(job, model=replace(job.model, name=str(cache)))
    try:
        tensors = safetensors.torch.load_file(str(cache / str(description["segment"])))
    except (OSError, SafetensorError) as error:
        raise ServeError(
            f"the part of the model in {cache} cannot be read ({error}); delete the folder"
        ) from error
    backbone = backbone_from(
        str(cache),
        tensors,
        task=str(description["task"]),
        dtype=job.model.dtype,
        fresh=tuple(map(str, description["fresh"])),
        cut=cut,
        labels=labels,
        device=where,
    )
    model = attach(backbone, job.model, seed=job.seed)
    put_adapters(model, tensors)
    practice = job.learn.practice
    segment = DeviceSegment(
        backbone,
        cut,
        1,
        frozen_a=practice.aggregation == "freeze-a",
        frozen_half=practice.device_half == "frozen",
        labels=labels,
    )
    segment.checkpointing = job.learn.checkpointing
    dataset, own = samples(
        job,
        data,
        int(description["device"]),
        [str(name) for name in description["classes"]],
        column,
        label,
        notify,
    )
    place = Place(
        number=int(description["device"]),
        run=str(description["run"]),
        cut=cut,
        seed=job.seed,
        task=backbone.task,
        examples=examples_of(dataset, backbone, str(cache), buckets=job.data.buckets),
        own=own,
        sampling=job.sampling,
    )
    up, down = map(int, description["bits"])
    exchange = Exchange(
        scheme=str(description["scheme"]),
        seed=job.seed,
        bits={place.number: (up, down)},
        per_token=backbone.task == CAUSAL,
    )
    notify(f"device {place.number}: {len(own)} samples, {cut} blocks")
    return Client(link, place, segment, job.learn, exchange, folder / "state", notify)


def samples(
    job: Job,
    data: str | None,
    device: int,
    classes: list[str],
    column: str,
    label: str,
    notify: Callable[[str], None],
) -> tuple[Dataset, Any]:
    """Return a dataset with the server's classes, and the indices of this device's samples in it."""
    settings = replace(
        job.data,
        name=data or job.data.name,
        input=column or ("" if data else job.data.input),
        label=label or job.data.label,
        # What a device brings is its own alone: nothing is shared out, and no choice is made by a part of it.
        partition=DataSettings.partition if data else job.data.partition,
        validation=0.0 if data else job.samples.validation,
    )
    splits = load_data(settings, job.seed, preprocessor_of(replace(job, data=settings)))
    for note in splits.notes:
        notify(note)
    train = splits.train
    if data is None:
        shared = share_out(job.data, train, job.fleet.devices, job.seed)
        return shared.train, shared.parts[device]
    unknown = sorted(set(train.classes) - set(classes))
    if unknown:
        raise DataError(
            f"data {data} holds the class {unknown[0]!r}, which the job does not know (it has "
            f"{', '.join(classes[:20])}); rename it, or leave its samples out"
        )
    if train.classes:
        numbers = np.array([classes.index(name) for name in train.classes], np.int64)
        train = replace(train, labels=numbers[train.labels], classes=tuple(classes))
    return train, np.arange(len(train))


def fetch(link: Link, cache: Path, name: str, sha256: str) -> None:
    """Download a file unless ``cache`` holds it; raises ServeError when what came is not what was announced."""
    if not NAME.fullmatch(name):
        raise ServeError(
            f"the server names a file {name[:60]!r}; names are letters, digits, '.', '_' and '-'"
        )
    path = cache / name
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return
    body = link.call("GET", f"/v1/files/{name}")
    if hashlib.sha256(body).hexdigest() != sha256:
        raise ServeError(f"{name} came damaged; join again")
    with writing(path, "choose another --folder", ServeError):
        replace_file(path, body)
