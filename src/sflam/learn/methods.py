"""The methods by name: what each quantizes, and what its server keeps."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.learn import settings


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        split: whether the model is cut at all.
        quantized: whether what crosses the cut is quantized; otherwise it crosses as floats.
        shared: one server copy for all devices (SFL-V2), or one each (SFL-V1).
        summary: one line for people.
        source: where it comes from.
    """

    split: bool
    quantized: bool
    shared: bool
    summary: str
    source: str


METHODS: dict[str, Method] = {
    "sflam": Method(
        split=True,
        quantized=True,
        shared=False,
        summary="split federated fine-tuning with a quantized cut, one server copy per device",
        source="arXiv 2504.09114",
    ),
    "sfl-v1": Method(
        split=True,
        quantized=False,
        shared=False,
        summary="SplitFed V1: one server copy per device, averaged every round",
        source="arXiv 2004.12088",
    ),
    "sfl-v2": Method(
        split=True,
        quantized=False,
        shared=True,
        summary="SplitFed V2: one server copy for all devices",
        source="arXiv 2004.12088",
    ),
    "central": Method(
        split=False,
        quantized=False,
        shared=True,
        summary="the whole model on all the data, as many samples a round as the fleet uses",
        source="the reference every method is compared with",
    ),
}

assert tuple(METHODS) == settings.METHODS, "settings.py names exactly the methods that exist"
