"""``sflam device``: a device of a served job in NumPy and the standard library, within a limit of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.sampling import most_rows
from sflam.device.engines import Engines
from sflam.device.footprint import Footprint, RunPlan, body_bytes
from sflam.device.half import LeanHalf
from sflam.device.memory import peak_bytes, resident_bytes
from sflam.device.samples import OwnSamples, samples_of
from sflam.device.settings import OFFERS
from sflam.device.weights import Weights
from sflam.errors import ServeError
from sflam.files import writing
from sflam.graph.bundle import Bundle
from sflam.graph.reading import read_bundle
from sflam.lean_memory import MEGABYTE
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.link.https_client import LARGEST, Link
from sflam.link.job import ELSEWHERE, ServedJob, described, fetch
from sflam.link.jobs import until_it_ends
from sflam.link.limits import Limits
from sflam.link.loop import Client
from sflam.link.needs import expect_offered
from sflam.link.noise_secret import own_guard
from sflam.link.own_data import own_settings
from sflam.link.own_masks import masks_of
from sflam.link.place import Place
from sflam.sizes import FLOAT_BITS, IDENTITY, sent_tokens


@dataclass(frozen=True, kw_only=True)
class Bringing:
    """What a device's user brings.

    Attributes:
        data: a file, folder or named dataset of this device alone or, with ``share``, a copy of the job's.
        share: take the device's share of the job's data; without ``data`` of a public data set alone.
        column: array or column of the inputs; the job's by default.
        label: array or column of the labels; the job's by default.
        folder: keeps what was downloaded, samples prepared once, and where this device is.
        memory: most bytes the process may take; None takes what it needs, 100 MB where that is enough.
        limits: what the job may take of this machine, by what it announces.
        state_every: steps after which the state is written; 0 writes it once a round.
    """

    data: str | None = None
    share: bool = False
    column: str = ""
    label: str = ""
    folder: Path = Path("device")
    memory: int | None = None
    limits: Limits = field(default_factory=Limits)
    state_every: int = 1


def take_part(link: Link, bringing: Bringing, notify: Callable[[str], None] = lambda line: None) -> int:
    """Take part in a served job until it ends; return the rounds trained.

    Args:
        link: the way to the server.
        bringing: data, folder and limits.
        notify: shows a line to the user of the device.

    Raises:
        SflamError: whatever keeps it from taking part; a job that a device without torch cannot do, and a limit that
            is too small, are refused before the device joins.
    """
    try:
        rounds = until_it_ends(lambda: client_of(link, bringing, notify), notify)
        notify(f"peak memory {peak_bytes() / MEGABYTE:.1f} MB")
        return rounds
    finally:
        link.close()


def client_of(
    link: Link, bringing: Bringing, notify: Callable[[str], None] = lambda line: None
) -> Client[NDArray[np.floating]]:
    """Return the device, ready to take part; see :func:`take_part`."""
    served = described(link)
    folder = bringing.folder
    cache = folder / "model"
    job = served.settings(folder)
    expect_offered(job, OFFERS, "a device without torch")
    own_settings(job, bringing.data, bringing.column, bringing.label, share=bringing.share)
    masks = masks_of(job, notify)  # before what is resident is measured: it loads a library
    bringing.limits.expect_within(served, job, folder, held=False)
    bundle = _graphs(link, served, cache)
    served.fetch(link, cache)
    samples = samples_of(
        job,
        bringing.data,
        served.device,
        served.classes,
        served.task,
        cache,
        folder / "data",
        share=bringing.share,
        column=bringing.column,
        label=bringing.label,
        notify=notify,
    )
    engines = Engines(bundle, dropout=job.learn.cache == "off")
    guard = own_guard(job, folder)
    exchange = TokenExchange(
        NumpyCoder(served.scheme),
        served.scheme,
        job.seed,
        served.device,
        bundle.dim,
        engines.dtype.itemsize * 8,
        served.bits,
        served.bits_adapters,
        guard=guard,
    )
    choice = _chosen(job, served, engines, samples, bringing, exchange.streams)
    notify(choice.described())
    weights = Weights(cache / served.segment, keep=choice.keep_pages)
    drop = guard.drop if guard else None
    half = LeanHalf(
        engines, weights, samples, job.learn, choice.grouping, buckets=job.data.buckets, drop=drop
    )
    place = Place(
        served.device,
        served.run,
        job.seed,
        samples.own,
        job.sampling,
        bundle.text,
        served.digest,
        moved=served.moved,
        secret=guard.secret if guard else b"",
    )
    notify(f"device {place.number}: {len(samples.own)} samples, {served.cut} blocks")
    return Client(
        link,
        place,
        half,
        job.learn,
        exchange,
        folder / "state.safetensors",
        state_every=bringing.state_every,
        streaming=choice.streaming,
        masked=masks(link, place, served.bits_adapters),
        notify=notify,
    )


def _graphs(link: Link, served: ServedJob, cache: Path) -> Bundle:
    """Return the graphs of the device's part; raises ServeError where the server has none, with its reason."""
    if served.graphs is None:
        raise ServeError(
            f"this job gives nothing to a device without torch ({served.graphs_refused or 'an older server'}); join "
            "with sflam join"
        )
    name, sha256 = served.graphs
    with writing(cache, ELSEWHERE, ServeError):
        cache.mkdir(parents=True, exist_ok=True)
    fetch(link, cache, name, sha256, most=served.sizes.get(name, LARGEST))
    bundle = read_bundle((cache / name).read_bytes())
    if bundle.cut != served.cut or bundle.task != served.task:
        raise ServeError(
            f"the graphs are of cut {bundle.cut} and task {bundle.task}, the job of {served.cut} and {served.task}; "
            "use the same version on both sides"
        )
    return bundle


def _chosen(
    job: Job, served: ServedJob, engines: Engines, samples: OwnSamples, bringing: Bringing, streams: bool
) -> RunPlan:
    """Return how to run within the limit of memory; raises ServeError where that cannot be."""
    bundle, lengths = engines.bundle, samples.dataset.lengths
    longest = bundle.tokens if lengths is None else int(lengths[samples.own].max())
    rows = most_rows([len(samples.own)], job.learn.batch, job.fleet.asked or job.fleet.devices, job.sampling)
    raw = served.scheme == IDENTITY
    bits = engines.dtype.itemsize * 8 if raw else max(served.bits)
    return Footprint(
        engines=engines,
        learn=job.learn,
        spec=samples.spec,
        rows=rows,
        longest=longest,
        segment=(bringing.folder / "model" / served.segment).stat().st_size,
        body=body_bytes(
            rows * sent_tokens(longest, job.privacy.drop_tokens), bundle.dim, bits, served.scheme
        ),
        moments=bringing.folder / "moments",
        resident=resident_bytes(),
        streams=streams,
        changes=served.bits_adapters < FLOAT_BITS,
    ).choose(bringing.memory)
