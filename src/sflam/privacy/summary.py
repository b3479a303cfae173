"""An audit as one object for JSON, with a recommendation in a sentence and its limits in three."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from sflam.privacy.audit import Audit
from sflam.privacy.subject import Subject

HALF = 0.5
"""Of the way from a guess to the best that an attack got anywhere: a cut below it is recommended."""
LIMITS = (
    "what these attacks do not find, a stronger one may: an audit proves leaks, never that there are none",
    "decoders learn from held-out samples of the same kind, which is more than most servers have",
    "quantization is no protection that anything here proves; without noise nothing is promised",
)


def summary(found: Audit, subject: Subject) -> dict[str, Any]:
    """Return what ``sflam audit --json`` prints."""
    job = subject.job
    sent = sorted({(item.cut, item.bits_up) for item in job.placements if not item.alone})
    return {
        "model": job.model.name,
        "data": job.data.name,
        "scheme": job.quant.scheme,
        "labels": job.model.labels,
        "trained": found.trained,
        "samples": found.samples,
        "sent": [{"cut": cut, "bits": bits} for cut, bits in sent],
        "cells": [
            {"cut": cut, "bits": bits, "bytes_up": size} for (cut, bits), size in found.bytes_up.items()
        ],
        "findings": [asdict(each) for each in found.findings],
        "sentences": [*_advice(found, subject), *(f"limit: {limit}" for limit in LIMITS)],
    }


def _advice(found: Audit, subject: Subject) -> Iterator[str]:
    about = "images" if any(each.about == "images" for each in found.findings) else "texts"
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
    if worst.score - worst.guess < 0.05:
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
    guessed = [each for each in found.findings if each.about == "labels"]
    if guessed:
        best = max(guessed, key=lambda each: each.score)
        kept = "stay at home" if subject.job.model.labels == "device" else "go to the server anyway"
        yield (
            f"labels, which {kept} here: the attack by {best.attack} has {best.score:.0%} right, a guess "
            f"{best.guess:.0%}"
        )
