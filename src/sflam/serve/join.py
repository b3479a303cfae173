"""``sflam join``: this machine as a device of a served job. It downloads its part of the model and brings its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.partition import share_out
from sflam.data.sources import load as load_data
from sflam.errors import ServeError
from sflam.link.adapter_way import AdapterWay
from sflam.link.https_client import Link
from sflam.link.job import ServedJob, described
from sflam.link.jobs import until_it_ends
from sflam.link.limits import Limits
from sflam.link.loop import Client
from sflam.link.noise_secret import own_guard
from sflam.link.own_data import own_settings, with_classes
from sflam.link.own_masks import masks_of
from sflam.link.place import Place
from sflam.model.adapters import attach
from sflam.model.backbone import TORCH_DTYPES, Backbone
from sflam.model.compact import expanded
from sflam.model.export import backbone_from, put_adapters
from sflam.model.layout import layout_from
from sflam.model.split import DeviceSegment
from sflam.plugins import load_plugins
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.job_model import torch_device
from sflam.serve.corrected_weights import CorrectedWay, frozen_weights
from sflam.serve.torch_half import TorchHalf, torch_exchange

ANY = Limits()


def join(
    link: Link,
    data: str | None,
    folder: Path,
    *,
    share: bool = False,
    column: str = "",
    label: str = "",
    device: str = "auto",
    plugins: Sequence[str] = (),
    state_every: int = 1,
    limits: Limits = ANY,
    threads: int | None = None,
    adapters: AdapterWay | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> int:
    """Take part in a served job until it ends; return the rounds trained.

    Args:
        link: the way to the server.
        data: a file, folder or named dataset of this device alone or, with ``share``, a copy of the job's data.
        share: take this device's share of the job's data, as a simulation would give it; without ``data`` of a public
            data set alone.
        folder: keeps what was downloaded, and where this device is.
        column: array or column of the inputs; the job's by default.
        label: array or column of the labels; the job's by default.
        device: ``cpu``, ``cuda`` or ``auto``.
        plugins: plug-ins to load, see :mod:`sflam.plugins`. The server's word loads nothing: it only names what its job
            needs, and a device without just that does not take part.
        state_every: steps after which the state is written; 0 writes it once a round. A device that dies between two
            states may have to sit the round out.
        limits: what the job may take of this machine.
        threads: that compute; None takes torch's own number. A canonical job has one.
        adapters: how a round's adapters come and go; over ``link`` by default.
        notify: shows a line to the user of the device.

    Raises:
        SflamError: whatever keeps it from taking part.
    """
    own = load_plugins(plugins)
    if threads is not None:
        torch.set_num_threads(threads)

    def taken_up() -> Client[Tensor]:
        served = described(link, own)
        return _client(
            link, served, data, share, folder, column, label, device, state_every, limits, adapters, notify
        )

    try:
        return until_it_ends(taken_up, notify)
    finally:
        link.close()


def _client(
    link: Link,
    served: ServedJob,
    data: str | None,
    share: bool,
    folder: Path,
    column: str,
    label: str,
    device: str,
    state_every: int,
    limits: Limits,
    adapters: AdapterWay | None,
    notify: Callable[[str], None],
) -> Client[Tensor]:
    """Return the device, ready to take part."""
    cache = folder / "model"
    job = served.settings(folder)
    own_settings(
        job, data, column, label, share=share
    )  # what is missing is reported before anything is fetched
    masks = masks_of(job, notify)
    limits.expect_within(served, job, folder, held=True)
    served.fetch(link, cache)
    where = torch_device(device)
    if job.learn.canonical:
        torch.set_num_threads(1)
    job = replace(job, model=replace(job.model, name=str(cache)))
    frozen = job.learn.practice.device_half == "frozen"
    backbone, segment = segment_of(served, job, cache, where, frozen=frozen)
    dataset, own = samples(job, data, served.device, list(served.classes), column, label, notify, share=share)
    examples = examples_of(dataset, backbone, str(cache), buckets=job.data.buckets)
    if job.learn.practice.aggregation == "residual":
        adapters = CorrectedWay(link, frozen_weights(backbone, segment, served.cut))
    guard = own_guard(job, folder)
    half = TorchHalf(segment, served.cut, job.learn, examples, own, guard, job.sampling)
    secret = guard.secret if guard else b""
    text = dataset.kind == "text"
    place = Place(
        served.device,
        served.run,
        job.seed,
        own,
        job.sampling,
        text,
        served.digest,
        moved=served.moved,
        secret=secret,
    )
    notify(f"device {place.number}: {len(own)} samples, {served.cut} blocks")
    return Client(
        link,
        place,
        half,
        job.learn,
        torch_exchange(
            half,
            served.scheme,
            job.seed,
            served.device,
            served.bits,
            served.bits_adapters,
            guard,
        ),
        folder / "state.safetensors",
        state_every=state_every,
        adapters=adapters,
        masked=masks(link, place, served.bits_adapters),
        notify=notify,
    )


def segment_of(
    served: ServedJob, job: Job, cache: Path, where: torch.device, *, frozen: bool
) -> tuple[Backbone, DeviceSegment]:
    """Return the model's shape with this device's part in it, and that part.

    Args:
        served: what the server says of the job.
        job: its settings.
        cache: where its files are.
        where: the part computes.
        frozen: whether it trains nothing, so that adapters came with it.

    Raises:
        ServeError: its file cannot be read.
    """
    try:
        found = safetensors.torch.load_file(str(cache / served.segment))
        tensors = expanded(found, TORCH_DTYPES[job.model.dtype])
    except (OSError, SafetensorError) as error:
        raise ServeError(
            f"the part of the model in {cache} cannot be read ({error}); delete the folder"
        ) from error
    backbone = backbone_from(
        str(cache),
        tensors,
        task=served.task,
        dtype=job.model.dtype,
        fresh=served.fresh,
        cut=served.cut,
        labels=job.model.labels,
        device=where,
        layout=layout_from(served.layout),
    )
    model = attach(backbone, job.model, seed=job.seed)
    put_adapters(model, tensors)
    practice = job.learn.practice
    segment = DeviceSegment(
        backbone,
        served.cut,
        1,
        frozen_a=practice.aggregation == "freeze-a",
        frozen_half=frozen,
        full=job.model.trainable == "full",
        labels=job.model.labels,
    )
    segment.checkpointing = job.learn.checkpointing
    return backbone, segment


def samples(
    job: Job,
    data: str | None,
    device: int,
    classes: list[str],
    column: str,
    label: str,
    notify: Callable[[str], None],
    *,
    share: bool = False,
) -> tuple[Dataset, Any]:
    """Return a dataset with the server's classes, and the indices of this device's samples in it."""
    settings = own_settings(job, data, column, label, share=share)
    splits = load_data(settings, job.seed, preprocessor_of(replace(job, data=settings)))
    for note in splits.notes:
        notify(note)
    train = splits.train
    if share:
        shared = share_out(job.data, train, job.fleet.devices, job.seed)
        return shared.train, shared.parts[device]
    return with_classes(train, classes, settings.name), np.arange(len(train))
