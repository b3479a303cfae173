"""What a finished run offers devices that predict: their half of its model, and what their messages must be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sflam.config import Job, to_toml
from sflam.errors import RunError
from sflam.learn.exchange import Exchange
from sflam.learn.methods import METHODS, method_of
from sflam.link.contract import PROTOCOL, Contract
from sflam.model.backbone import Backbone, quiet, read_config
from sflam.model.built import token_shape
from sflam.model.dummy_inputs import make_inputs
from sflam.model.export import device_tensors, trained_head
from sflam.model.families import IMAGE
from sflam.model.structure import family_of, layout_of
from sflam.plugins import portable
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import write_preprocessing
from sflam.run.saved_model import saved_model
from sflam.serve.announcement import NOT_SENT, settings_sent
from sflam.serve.answers.trunk_half import TrunkHalf
from sflam.serve.contracts import longest_text
from sflam.sizes import FLOAT_BITS, IDENTITY, MAX_BITS, MIN_BITS

ROWS = 64
"""Most rows of a message."""
SOME_TOKENS = 1 << 12
"""Most tokens of a row where neither the model nor its tokenizer has a limit."""


@dataclass(frozen=True)
class AnswerOffer:
    """What a finished run offers.

    Attributes:
        trunk: the blocks behind the cut.
        contracts: device -> what its messages must be.
        descriptions: device -> what it must know, as JSON.
        files: what devices download, name -> path.
        notes: sentences about what was guessed on the way.
    """

    trunk: TrunkHalf
    contracts: Mapping[int, Contract]
    descriptions: Mapping[int, dict[str, Any]]
    files: Mapping[str, Path]
    notes: tuple[str, ...]


def offer_of(run: RunFolder, folder: Path, *, bits: int | None = None, device: str = "auto") -> AnswerOffer:
    """Return what a finished run offers.

    Args:
        run: its folder.
        folder: where the files that devices download are written.
        bits: of every value that comes up; ``FLOAT_BITS`` for floats, None for those of the run.
        device: that computes: ``cpu``, ``cuda`` or ``auto``.

    Raises:
        SflamError: the run is not finished, its model is damaged, or is not one that two sides can predict with.
    """
    job = run.read_job()
    classes = tuple(run.read_result()["classes"])
    _expect_answers(run, job, classes, bits)
    job = replace(job, learn=replace(job.learn, device=device))
    kind = "image" if IMAGE in family_of(read_config(job.model.name).model_type).tasks else "text"
    backbone, model, notes = saved_model(run, job, kind, len(classes))
    model.eval()
    cuts = [placement.cut for placement in job.placements]
    scheme, width = _travels(job, backbone, bits)
    exchange = Exchange(scheme, job.seed, dict.fromkeys(range(len(cuts)), (width, width)))
    with quiet():
        backbone.model.config.save_pretrained(str(folder))
    write_preprocessing(backbone.name, kind, folder)
    for cut in set(cuts):
        tensors = device_tensors(backbone, model, cut, job.model.labels, frozen_half=True)
        if job.model.labels == "device":
            tensors |= trained_head(backbone, model)
        safetensors.torch.save_file(tensors, str(folder / _half(cut)))
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    contract = _contract(job, backbone, kind, len(classes), exchange)
    common = _common(job, backbone, classes, exchange)
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    parts = {_half(cut) for cut in cuts}
    descriptions = {}
    for number, cut in enumerate(cuts):
        needed = {name: sha for name, sha in hashes.items() if name not in parts or name == _half(cut)}
        sizes = {name: files[name].stat().st_size for name in needed}
        own = {"device": number, "cut": cut, "segment": _half(cut), "files": needed, "sizes": sizes}
        descriptions[number] = common | own | {"body": contract.largest(), "dim": contract.dim}
    contracts = {number: replace(contract, device=number) for number in range(len(cuts))}
    trunk = TrunkHalf(backbone, cuts, exchange, job.model.labels)
    return AnswerOffer(trunk, contracts, descriptions, files, notes)


def _expect_answers(run: RunFolder, job: Job, classes: tuple[str, ...], bits: int | None) -> None:
    """Raise RunError where a run's model does not predict in two halves."""
    if not classes:
        raise RunError(
            f"{run.path} trained a language model, which predicts tokens, not labels; use a classifier"
        )
    if not METHODS[job.learn.method].split:
        raise RunError(
            f"{run.path} was trained by learn.method = {job.learn.method!r}, which cuts no model; use sflam predict"
        )
    if job.model.labels == "device" and job.learn.personal != "none":
        raise RunError(
            f"{run.path} has model.labels = 'device' and learn.personal = {job.learn.personal!r}: every device has a "
            "head of its own, which no server knows; use sflam predict --device where the heads are"
        )
    if not run.adapter.is_dir():
        raise RunError(
            f"{run.path} holds no adapter but a whole model, which has no halves; use sflam predict"
        )
    if bits is not None and not (MIN_BITS <= bits <= MAX_BITS or bits == FLOAT_BITS):
        raise RunError(f"--bits is {bits}; it must be {MIN_BITS}..{MAX_BITS}, or {FLOAT_BITS} for floats")


def _travels(job: Job, backbone: Backbone, bits: int | None) -> tuple[str, int]:
    """Return scheme and bits of what comes up."""
    scheme = method_of(job).scheme(job.quant)
    if bits == FLOAT_BITS or (scheme == IDENTITY and bits is None):
        return IDENTITY, 64 if backbone.model.dtype == torch.float64 else 32
    if scheme == IDENTITY:
        scheme = job.quant.scheme
    return scheme, bits or job.quant.bits_up


def _contract(job: Job, backbone: Backbone, kind: str, classes: int, exchange: Exchange) -> Contract:
    """Return what every device's messages must be."""
    sample = make_inputs(backbone.model, backbone.task, torch.Generator().manual_seed(0))[0]
    tokens, dim = token_shape(backbone, sample)
    if kind == "text":
        longest = job.data.max_tokens or longest_text(backbone.name) or SOME_TOKENS
        positions = getattr(backbone.model.config, "max_position_embeddings", None)
        tokens = min(longest, positions) if positions else longest
    bits = exchange.bits[0][0]
    return Contract(
        device=0,
        scheme=exchange.scheme,
        bits=bits,
        dim=dim,
        tokens=tokens,
        text=kind == "text",
        labels_up=False,
        per_token=False,
        classes=classes,
        batch=ROWS,
        local_steps=1,
        local_epochs=0,
        adapters=0,
        bits_down=bits,
    )


def _common(job: Job, backbone: Backbone, classes: tuple[str, ...], exchange: Exchange) -> dict[str, Any]:
    """Return what every device must know."""
    layout = layout_of(backbone.family, backbone.task)
    return {
        "protocol": PROTOCOL,
        "version": version("sflam"),
        "run": "answers",
        "bits": list(exchange.bits[0]),
        "task": backbone.task,
        "classes": list(classes),
        "fresh": list(backbone.fresh),
        "scheme": exchange.scheme,
        **({} if layout is None else {"layout": layout.as_json()}),
        "job": to_toml(settings_sent(job), without=NOT_SENT),
        "plugins": [portable(name) for name in job.plugins],
    }


def _half(cut: int) -> str:
    """Return the name of the file with the device's half of the model."""
    return f"half-{cut}.safetensors"
