"""What a served job agrees with each of its devices, from the assembled job."""

from __future__ import annotations

import numpy as np

from sflam.data.poisson import most_drawn
from sflam.data.settings import POISSON
from sflam.errors import ConfigError, DataError
from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import ANY_LOSS, Contract
from sflam.model.adapters import State, state_of
from sflam.model.built import token_shape
from sflam.model.families import CAUSAL
from sflam.model.tokenizer import Tokenizer
from sflam.run.assemble import Assembly, examples_of
from sflam.sizes import IDENTITY, sent_tokens


def tokens_of_rows(assembly: Assembly) -> tuple[int, int]:
    """Return the tokens of an image, or the most of a text, as a device's half sees them, and d."""
    backbone, job, train = assembly.backbone, assembly.job, assembly.splits.train
    sample = examples_of(train, backbone).take(np.arange(1)).inputs
    tokens, dim = token_shape(backbone, sample)
    if train.kind == "text":
        limits = [train.inputs.shape[1], job.data.max_tokens or longest_text(backbone.name)]
        positions = getattr(backbone.model.config, "max_position_embeddings", None)
        tokens = min(max(limits), positions) if positions else max(limits)
    return tokens, dim


def contracts_of(assembly: Assembly, local: LocalFleet) -> dict[int, Contract]:
    """Return what is agreed with each device.

    Raises:
        ConfigError: texts have noise and no bound on their tokens, all of which an epsilon counts.
    """
    backbone, job, exchange = assembly.backbone, assembly.job, local.exchange
    train = assembly.splits.train
    if train.kind == "text" and job.privacy.noise and not job.data.max_tokens:
        longest = train.inputs.shape[1]
        raise ConfigError(
            f"data.max_tokens is 0 and privacy.noise {job.privacy.noise:g}: an epsilon counts all tokens of a text, "
            f"and devices may have longer ones than the server; set data.max_tokens, for example to {longest}"
        )
    tokens, dim = tokens_of_rows(assembly)
    text, causal = train.kind == "text", backbone.task == CAUSAL
    start = state_of(assembly.model)
    segment, double = local.devices.segment, str(backbone.model.dtype) == "torch.float64"
    raw = 64 if double else 32
    bits = dict.fromkeys(exchange.bits, (raw, raw)) if exchange.scheme == IDENTITY else exchange.bits
    batch, whole = job.learn.batch, job.fleet.asked or job.fleet.devices
    guard = exchange.guard
    losses = guard.mean_losses if guard and guard.moves_losses else ANY_LOSS
    fleet_rows = {"global": batch * whole, POISSON: most_drawn(batch)}.get(job.sampling, 0)
    return {
        device: Contract(
            device=device,
            scheme=exchange.scheme,
            bits=bits[device][0],
            dim=dim,
            tokens=sent_tokens(tokens, job.privacy.drop_tokens),
            text=text,
            labels_up=job.model.labels == "server",
            per_token=causal,
            answers=bool(job.data.answer),
            classes=int(backbone.model.config.vocab_size) if causal else len(train.classes),
            batch=job.learn.batch,
            local_steps=job.learn.local_steps,
            local_epochs=job.learn.local_epochs,
            adapters=trained_by(local, start, device),
            adapter_bits=segment.stack.values.element_size() * 8,
            bits_down=bits[device][1],
            change_bits=local.adapters.bits,
            fleet_rows=fleet_rows,
            summed=job.privacy.secure_aggregation,
            kept=job.learn.cache == "server",
            losses=losses,
            most_samples=job.fleet.most_samples,
        )
        for device in range(len(local.devices.cuts))
    }


def trained_by(local: LocalFleet, start: State, device: int) -> int:
    """Return the weights that a device trains on its side; ``start`` are any global adapters."""
    return sum(t.numel() for t in local.ranks.own(device, start, local.devices.names(device)).values())


def longest_text(model: str) -> int:
    """Return the tokens that a model sees at most, 0 when nothing limits them or it has no tokenizer."""
    try:
        return Tokenizer(model).longest()
    except DataError:
        return 0
