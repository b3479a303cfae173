"""Small fleets for tests."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np

from sflam.codec.settings import QuantSettings
from sflam.data.dataset import Dataset
from sflam.data.images import ImageSpec
from sflam.learn.evaluate import Score
from sflam.learn.examples import Examples
from sflam.learn.methods import METHODS
from sflam.learn.relay import Relay
from sflam.learn.round import train
from sflam.learn.secure_fleet import SecureFleet
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import attach, load_state, state_of
from sflam.model.settings import ModelSettings
from tests.tiny import CLASSES, VOCABULARY, is_image, largest_difference, tiny

IDENTITY = QuantSettings(scheme="identity")
SAMPLES = 60
# Clipping at 0.5 acts on some steps and not on others; momentum and decay make every trap visible.
LEARN = LearnSettings(rounds=2, batch=4, lr=1e-2, clip=0.5, weight_decay=0.01, device="cpu")


def dataset(kind, samples=SAMPLES, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, samples)
    classes = tuple(map(str, range(CLASSES)))
    if is_image(kind):
        images = draw.integers(0, 256, (samples, 16, 16, 1), dtype=np.uint8)
        return Dataset("random", "image", images, None, labels, classes)
    ids = draw.integers(1, VOCABULARY, (samples, 10))
    lengths = draw.integers(2, 11, samples).astype(np.int32)
    ids[np.arange(10)[None, :] >= lengths[:, None]] = 0
    return Dataset("random", "text", ids, lengths, labels, classes)


def parts_of(sizes):
    """Return consecutive index ranges of the given sizes."""
    edges = np.cumsum([0, *sizes])
    return [np.arange(a, b) for a, b in itertools.pairwise(edges)]


def adapted(kind, *, dropout=0.0, model_settings=None, dtype=None):
    """Return a tiny backbone, its peft wrapper with random adapters, and examples."""
    import torch

    backbone = tiny(kind, dropout=dropout, **({"dtype": dtype} if dtype else {}))
    model = attach(backbone, model_settings or ModelSettings(rank=2))
    draw = torch.Generator().manual_seed(5)
    load_state(
        model, {n: torch.randn(t.shape, generator=draw).to(t) * 0.1 for n, t in state_of(model).items()}
    )
    spec = ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,)) if is_image(kind) else None
    return backbone, model, Examples(dataset(kind), backbone, spec)


def local_fleet(
    backbone,
    model,
    examples,
    parts,
    *,
    cut=1,
    cuts=(),
    servers=(),
    ranks=(),
    selected=0,
    policy="uniform",
    quant=IDENTITY,
    **options,
):
    """Return a fleet of one device per part; ``options`` override learn, seed and labels, and may add privacy."""
    chosen = {"learn": LEARN, "seed": 3} | options
    method = METHODS[chosen["learn"].method]
    settings = FleetSettings(
        devices=len(parts),
        selected=selected,
        policy=policy,
        cuts=tuple(cuts),
        servers=tuple(servers),
        ranks=tuple(ranks),
    )
    privacy = chosen.pop("privacy", None)
    plain = Relay if method.relay else LocalFleet
    return (partial(SecureFleet, privacy=privacy) if privacy else plain)(
        backbone,
        model,
        examples,
        parts,
        placements=settings.placements(cut, (quant.bits_up, quant.bits_down)),
        settings=settings,
        scheme=method.scheme(quant),
        adapters=method.adapters(quant, chosen["seed"], chosen.get("guard")),
        **chosen,
    )


def with_bits(fleet, bits):
    """Return the placements of a fleet with each listed device's own bits up and down."""
    return [
        replace(placement, bits_up=bits[placement.device][0], bits_down=bits[placement.device][1])
        for placement in fleet.placements
        if placement.device in bits
    ]


def run(fleet, state, rounds):
    """Run ``rounds`` rounds without evaluation; return the records and the final adapters."""
    done = list(train(fleet, state, lambda _: Score(0.0, 0.0), range(rounds)))
    return [record for record, _ in done], done[-1][1]


def assert_equal_states(a, b, tolerance=1e-9):
    assert a.keys() == b.keys()
    for name in a:
        assert largest_difference(a[name], b[name]) < tolerance, (name, largest_difference(a[name], b[name]))
