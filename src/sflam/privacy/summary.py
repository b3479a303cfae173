"""An audit as one object for JSON, with a recommendation in a sentence and its limits in three."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sflam.privacy.audit import Audit, Cell
from sflam.privacy.class_mix import CLASS_MIX
from sflam.privacy.front import LOST, on_front, recommended
from sflam.privacy.settings import SAMPLE, PrivacySettings
from sflam.privacy.subject import Subject

HALF = 0.5
"""Of the way from a guess to the best that an attack got anywhere: a cut below it is recommended."""
LIMITS = (
    "what these attacks do not find, a stronger one may: an audit proves leaks, never that there are none",
    "decoders learn from held-out samples of the same kind, which is more than most servers have",
    "quantization is no protection that anything here proves; without noise nothing is promised",
)
NOISY = "accuracy is of the model as it is, on noisy activations; training with noise may lose less, or not converge"


def summary(
    found: Audit,
    subject: Subject,
    prices: Mapping[Cell, tuple[float, float]] | None = None,
    visits: int = 1,
) -> dict[str, Any]:
    """Return what ``sflam audit --json`` prints.

    Args:
        found: by the attacks.
        subject: of the audit.
        prices: seconds and joules of a planned round, where they are known.
    """
    job = subject.job
    cells = _cells(found, prices or {})
    noisy = any(cell["noise"] for cell in cells)
    limits: tuple[str, ...] = (*LIMITS[:2], NOISY) if noisy else LIMITS
    if job.privacy.drop_tokens:
        limits = (*limits, _drop_limit(job.privacy, visits))
    sent = sorted({(item.cut, item.bits_up) for item in job.placements if not item.alone})
    return {
        "model": job.model.name,
        "data": job.data.name,
        "scheme": job.quant.scheme,
        "labels": job.model.labels,
        "drop_tokens": job.privacy.drop_tokens,
        "visits": visits,
        "trained": found.trained,
        "samples": found.samples,
        "sent": [{"cut": cut, "bits": bits} for cut, bits in sent],
        "cells": cells,
        "findings": [asdict(each) for each in found.findings],
        "sentences": [*_advice(found, subject, cells, noisy), *(f"limit: {limit}" for limit in limits)],
    }


def _cells(found: Audit, prices: Mapping[Cell, tuple[float, float]]) -> list[dict[str, Any]]:
    """Return a row per cut, width and noise: what it gives away, costs and leaves, and whether it is on the front."""
    rows: list[dict[str, Any]] = []
    for cell, worth in found.worth.items():
        latency, energy = prices.get(cell, (None, None))
        best = found.best(_about(found), cell)
        assert best is not None, "every cell has an attack on its inputs"
        rows.append(
            dict(zip(("cut", "bits", "noise"), cell, strict=True))
            | asdict(worth)
            | {"leak": best.score, "latency_s": latency, "energy_j": energy}
        )
    for row, front in zip(rows, on_front(rows), strict=True):
        row["front"] = front
    return rows


def _drop_limit(privacy: PrivacySettings, visits: int) -> str:
    """Return what an audit of dropped tokens does not show."""
    whole = (
        "labels by gradients are guessed with all tokens, and the accuracy is of predictions, which send all"
    )
    if privacy.drop_draw == SAMPLE:
        return f"tokens that stay at home are the same in all visits of a sample; {whole}"
    share = 1 - privacy.drop_tokens**visits
    counted = "one visit" if visits == 1 else f"{visits} visits"
    return (
        f"the tokens are those of {counted} of a sample, {share:.1%} of it; a server that puts more visits "
        f"together sees more (--visits): the share is 1 - {privacy.drop_tokens:g}^visits; {whole}"
    )


def _summed(subject: Subject) -> bool:
    """Whether the server learns sums of adapters alone."""
    return subject.job.privacy.secure_aggregation


def _about(found: Audit) -> str:
    return "images" if any(each.about == "images" for each in found.findings) else "texts"


def _advice(found: Audit, subject: Subject, cells: Sequence[Mapping[str, Any]], noisy: bool) -> Iterator[str]:
    about = _about(found)
    inputs = [each for each in found.findings if each.about == about]
    worst = max(inputs, key=lambda each: each.score)
    yield (
        f"{about}: the attack by {worst.attack} gets furthest, {worst.measure} {worst.score:.2f} at cut {worst.cut}; a "
        f"guess has {worst.guess:.2f}"
    )
    limit = worst.guess + HALF * (worst.score - worst.guess)
    hidden = [
        cut
        for cut in sorted({each.cut for each in inputs})
        if all(each.score < limit for each in inputs if each.cut == cut)
    ]
    choice = recommended(cells) if noisy else None
    if choice is not None:
        bits = "floats" if choice["bits"] is None else f"{choice['bits']} bits"
        clip = f"privacy.clip = {choice['clip']:.3g} and privacy.noise = {choice['noise']:g}"
        yield (
            f"recommended: cut {choice['cut']} at {bits} with {clip if choice['noise'] else 'no noise'}, which gives "
            f"away least ({worst.measure} {choice['leak']:.2f}) of all within {LOST:.0%} of the best accuracy "
            f"({choice['accuracy']:.1%})"
        )
    elif worst.score - worst.guess < 0.05:
        yield f"no attack got far beyond a guess at any cut: {about} are no reason to choose one"
    elif hidden:
        yield (
            f"recommended: model.cut = {hidden[0]} or more, the first cut at which no attack here gets half as far "
            f"({worst.measure} below {limit:.2f})"
        )
    else:
        yield (
            f"no cut looked at keeps every attack below half of that ({worst.measure} {limit:.2f}): trust the server "
            "with the samples, or choose other cuts"
        )
    members = [each for each in found.findings if each.about == "members"]
    if members:
        surest = max(members, key=lambda each: each.more["caught_at_1_percent"])
        yield (
            f"members: the attack by {surest.attack} catches {surest.more['caught_at_1_percent']:.1%} at 1 % of false "
            f"alarms, a guess 1 %; its area under the ROC curve is {surest.score:.2f}"
        )
    mix = next((each for each in found.findings if each.about == CLASS_MIX), None)
    if mix is not None:
        summed = "the sum of the adapters shows one mix for all: " if _summed(subject) else ""
        yield (
            f"class mix of a device, read from the adapters that it sends: {summed}overlap with the true mix "
            f"{mix.score:.2f}, of the fleet's mix as a guess {mix.guess:.2f}"
        )
    guessed = [each for each in found.findings if each.about == "labels"]
    if guessed:
        best = max(guessed, key=lambda each: each.score)
        kept = "stay at home" if subject.job.model.labels == "device" else "go to the server anyway"
        yield (
            f"labels, which {kept} here: the attack by {best.attack} has {best.score:.0%} right, a guess "
            f"{best.guess:.0%}"
        )
