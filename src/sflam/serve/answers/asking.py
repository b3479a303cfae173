"""``sflam predict --split``: a device predicts with its half of a model, a server of the run with the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sflam.codec.bodies import Body, encode
from sflam.codec.guard import Guard, guard_of
from sflam.codec.legs import UP
from sflam.codec.messages import StepFrame, TokenFrame
from sflam.data.settings import DataSettings
from sflam.data.sources import load_for_prediction
from sflam.errors import QuantizerError, ServeError, WireError
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position, opened
from sflam.learn.precision import arithmetic
from sflam.link.https_client import Link
from sflam.link.job import described
from sflam.model.lora import Rows
from sflam.model.split import DeviceSegment
from sflam.plugins import load_plugins
from sflam.privacy.settings import PrivacySettings
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.job_model import torch_device
from sflam.run.predict import relabelled
from sflam.run.predictions import Predictions
from sflam.serve.answers.offer import ROWS
from sflam.serve.join import segment_of
from sflam.sizes import IDENTITY, token_body_bytes

GUARDED = (
    "activations were clipped and noised as in training; what these predictions add to epsilon is not counted"
)
SECRET_BYTES = 32


@torch.no_grad()
def predict_split(
    link: Link,
    data: str,
    folder: Path,
    *,
    column: str = "",
    label: str = "",
    device: str = "auto",
    plugins: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Predictions:
    """Predict with the half of a finished run's model here and the rest at its server; samples and labels stay here.

    Args:
        link: the way to ``sflam answer``.
        data: a named dataset (its held-out part), or anything ``data.name`` accepts (its test split, or all of it).
        folder: keeps what was downloaded.
        column: the array or column that holds the inputs; empty guesses.
        label: the array or column that holds the labels, if there is one; empty means ``label``.
        device: that computes here: ``cpu``, ``cuda`` or ``auto``.
        plugins: plug-ins to load, see :mod:`sflam.plugins`; the server's word loads nothing.
        progress: called with the samples done, of how many.

    Raises:
        SflamError: the server refuses, or the data cannot be read by its model.
    """
    with closing(link):
        served = described(link, load_plugins(plugins))
        cache = folder / "model"
        job = served.settings(folder)
        served.fetch(link, cache)
        job = replace(job, model=replace(job.model, name=str(cache)))
        backbone, segment = segment_of(served, job, cache, torch_device(device), frozen=True)
        settings = replace(job.data, name=data, input=column, label=label or DataSettings.label)
        dataset, notes = load_for_prediction(settings, job.seed, preprocessor_of(replace(job, data=settings)))
        labels = relabelled(dataset, served.classes)
        examples = examples_of(dataset, backbone, str(cache))
        guard = _guard(job.privacy, job.seed)
        exchange = Exchange(served.scheme, job.seed, {served.device: served.bits}, guard=guard)
        segment.eval()
        scores = np.empty((len(examples), len(served.classes)), np.float32)
        sent = came = done = 0
        for number, indices in enumerate(examples.in_length_order(ROWS)):
            batch = examples.take(indices)
            with arithmetic(segment):
                hidden = segment(batch.inputs, batch.lengths, served.cut, Rows((0,), (len(batch),)))
            message = exchange.step_message(Position(0, number, served.device), hidden, batch, labels=False)
            body = encode(message)
            up = message.activations
            plain = 4 * len(batch) * len(served.classes)
            size = token_body_bytes(up.tokens, up.dim, up.bits, up.scheme) if segment.has_head else plain
            path, header = f"/v1/predictions/{number}/{len(batch)}", {"Sflam-Tokens": str(up.tokens)}
            found = link.call("POST", path, body, header, most=size)
            if segment.has_head:
                scores[indices] = _finished(segment, exchange, found, message, batch)
            elif len(found) == plain:
                scores[indices] = np.frombuffer(found, "<f4").reshape(len(batch), -1)
            else:
                raise ServeError(
                    f"the server answers {len(batch)} samples by {len(found)} bytes; use one version on both sides"
                )
            sent, came, done = sent + len(body), came + len(found), done + len(batch)
            progress(done, len(examples))
    if not np.isfinite(scores).all():
        raise ServeError("the server answers with NaN or inf; is the run's model damaged?")
    logits = torch.from_numpy(scores)
    loss = None if labels is None else float(F.cross_entropy(logits, torch.from_numpy(labels)))
    notes = (
        *notes,
        _crossed(served.cut, exchange, served.bits[0], sent, came if segment.has_head else 0),
        *([GUARDED] if guard and UP in guard.clips else []),
    )
    return Predictions(dataset.name, served.classes, logits.double().softmax(-1).numpy(), labels, loss, notes)


def _guard(settings: PrivacySettings, seed: int) -> Guard | None:
    """Return what is done to activations; its noise is of this call alone, as none hides twice."""
    return guard_of(settings, seed, os.urandom(SECRET_BYTES))


def _finished(
    segment: DeviceSegment, exchange: Exchange, body: Body, message: StepFrame, batch: Minibatch
) -> NDArray[np.float32]:
    """Return the logits [B,C] of the head here, from the server's answer to a message.

    Raises:
        ServeError: the answer is not the activations of these samples after the last block.
    """
    try:
        answer = opened(body, TokenFrame)
        wanted, found = (
            (each.round, each.step, each.device, packed.scheme, packed.bits, packed.tokens, packed.dim)
            for each, packed in ((message, message.activations), (answer, answer.tokens))
        )
        if found != wanted:
            raise WireError(
                f"round, step, device, scheme, bits, tokens, size are {found} where {wanted} were sent"
            )
        where = next(segment.parameters()).device
        hidden = exchange.receive_tokens(answer.tokens, len(batch), batch.lengths, where)
    except (WireError, QuantizerError) as error:
        raise ServeError(
            f"the server's answer cannot be read: {error}; use one version on both sides"
        ) from error
    with arithmetic(segment):
        logits = segment.finish(hidden, batch.lengths, Rows((0,), (len(batch),)))
    return logits.float().cpu().numpy()


def _crossed(cut: int, exchange: Exchange, bits: int, sent: int, came: int) -> str:
    """Return a sentence about what went up and, of activations, came back."""
    width = "floats" if exchange.scheme == IDENTITY else f"{bits} bits a value"
    rest = "the head here too, the blocks between" if came else "the rest"
    back = f", {came / 1e6:.2f} MB came back" if came else ""
    return f"{cut} block{'s' * (cut != 1)} here, {rest} at the server; {sent / 1e6:.2f} MB went up{back}, in {width}"
