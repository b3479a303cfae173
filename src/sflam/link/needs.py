"""What a job asks of a device, and what a kind of device can do: compared before it joins, so nothing fails later."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sflam.config import Job
from sflam.errors import ServeError
from sflam.values import toml_value

Offers = Mapping[str, Collection[str]]
"""Key of :func:`needs_of` -> the values that a kind of device can do."""


def needs_of(job: Job) -> dict[str, str]:
    """Return setting -> its value, of all settings that change what a device computes.

    What the loop does for every kind of device is not among them: schemes and bits, ``learn.state``, schedules, steps
    and epochs; nor what only the server does, nor ``learn.checkpointing``, which computes the same.
    """
    learn, practice = job.learn, job.learn.practice
    return {
        "model.trainable": job.model.trainable,
        "model.labels": job.model.labels,
        "model.dtype": job.model.dtype,
        "learn.optimizer": learn.optimizer,
        "learn.device_half": practice.device_half,
        "learn.aggregation": practice.aggregation,
        "learn.local": practice.local,
        "learn.cache": learn.cache,
        "learn.loss": learn.loss if job.model.labels == "device" else "cross-entropy",
        "learn.canonical": str(learn.canonical).lower(),
        "data.sampling": job.data.sampling or practice.sampling,
        "data.draw": job.data.draw,
        "quant.delta": str(job.quant.delta).lower(),
        "privacy": "some" if job.privacy.on else "none",
        "privacy.sample_clip": "some" if job.privacy.sample_clip else "none",
        "privacy.clip_loss": "some" if job.privacy.clip_loss else "none",
        "privacy.distance_correlation": "some" if job.privacy.distance_correlation else "none",
        "privacy.drop_tokens": "some" if job.privacy.drop_tokens else "none",
        "privacy.secure_aggregation": str(job.privacy.secure_aggregation).lower(),
        "plugins": "some" if job.plugins else "none",
    }


def expect_offered(job: Job, offers: Offers, kind: str) -> None:
    """Raise ServeError, naming every setting, unless a ``kind`` of device, which ``offers`` this, can do the job."""
    needs = needs_of(job)
    assert offers.keys() == needs.keys(), "a kind of device answers for every setting"
    lacking = [(key, value) for key, value in needs.items() if value not in offers[key]]
    if not lacking:
        return
    named = ", ".join(f"{key} = {toml_value(value) if '.' in key else value}" for key, value in lacking)
    able = "; ".join(f"{key}: {', '.join(sorted(offers[key]))}" for key, _ in lacking)
    raise ServeError(f"{kind} cannot do {named} (it can do {able}); join with sflam join, which does all")
