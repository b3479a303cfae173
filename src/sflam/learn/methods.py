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
        relay: whether devices train one after another and pass one device half on.
        at_home: whether every device trains the whole model itself.
        averaged: whether devices ever learn from each other.
    """

    split: bool
    quantized: bool
    shared: bool
    summary: str
    source: str
    relay: bool = False
    at_home: bool = False
    averaged: bool = True


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
    "sl": Method(
        split=True,
        quantized=False,
        shared=True,
        summary="split learning: devices one after another, one device half passed on, one server half",
        source="arXiv 1812.00564",
        relay=True,
    ),
    "fedlora": Method(
        split=False,
        quantized=False,
        shared=False,
        summary="every device trains the whole adapted model, adapters alone travel and are averaged",
        source="arXiv 2305.05644",
        at_home=True,
    ),
    "fedavg": Method(
        split=False,
        quantized=False,
        shared=False,
        summary="every device trains every weight of the whole model, which travels and is averaged",
        source="arXiv 1602.05629",
        at_home=True,
    ),
    "local": Method(
        split=False,
        quantized=False,
        shared=False,
        summary="every device trains the whole adapted model for itself; nothing travels, nothing is averaged",
        source="what a device reaches without the others",
        at_home=True,
        averaged=False,
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
