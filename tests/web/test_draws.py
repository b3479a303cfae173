"""Seeds, hashes, NumPy's generator, mini-batches and learning rates of the page are those of every other device."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np
import pytest

from sflam.data.batches import round_batches
from sflam.data.sampling import batches_of_shares
from sflam.errors import ServeError
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.link.contract import shares_of
from sflam.seeds import derive
from tests.web.node import needs_node, packed_array, run_check


def hashes():
    rng = np.random.default_rng(1)
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 70_001):
        body = rng.integers(0, 256, size, np.uint8)
        yield {"bytes": packed_array(body), "wanted": hashlib.sha256(body.tobytes()).hexdigest()}


def seeds():
    for seed, stream, indices in (
        (0, "batches", ()),
        (1 << 62, "quantizer", (3, 4, 5, 1)),
        (7, "é", (1 << 40,)),
    ):
        wanted = str(derive(seed, stream, *indices))
        yield {"seed": str(seed), "stream": stream, "indices": indices, "wanted": wanted}


def orders():
    for seed in (0, 1, 12345, derive(3, "batches", 1, 2), (1 << 63) - 1, (1 << 200) + 77):
        rng = np.random.default_rng(seed)
        found = [
            rng.permutation(np.arange(size, dtype=np.int32)) for size in (1, 2, 3, 7, 16, 255, 256, 1000)
        ]
        yield {"seed": str(seed), "orders": [packed_array(order) for order in found]}


def place(steps, epochs, lengths=None):
    plain = {"seed": "11", "round": 4, "device": 2, "steps": steps, "epochs": epochs}
    return plain | {"lengths": None if lengths is None else packed_array(lengths)}


def rounds():
    rng = np.random.default_rng(2)
    for count, size, steps, epochs in ((1, 4, 3, 1), (37, 8, 0, 2), (64, 16, 11, 1), (530, 16, 0, 1)):
        own = np.sort(rng.choice(2000, count, replace=False))
        for lengths in (None, rng.integers(1, 40, 2000).astype(np.int32)):
            drawn = round_batches(
                own, size, seed=11, round=4, device=2, steps=steps, epochs=epochs, lengths=lengths
            )
            yield {
                "own": packed_array(own.astype(np.int32)),
                "size": size,
                "of": place(steps, epochs, lengths),
                "batches": [packed_array(batch.astype(np.int32)) for batch in drawn],
            }


def shared():
    own = np.arange(10, 20)
    for shares, steps, epochs in (([3, 0, 7], 0, 1), ([5, 5, 4, 6, 0], 0, 2), ([2, 8, 1], 3, 1)):
        assert shares_of(shares, 10, steps, epochs) == shares
        drawn = batches_of_shares(own, np.array(shares), seed=11, round=4, device=2)
        yield {
            "own": packed_array(own.astype(np.int32)),
            "shares": shares,
            "of": place(steps, epochs),
            "batches": [packed_array(batch.astype(np.int32)) for batch in drawn],
        }


def wrong():
    own = np.arange(10)
    for shares, steps, epochs in (
        ([11], 1, 1),
        ([3, 7], 3, 1),
        ([3], 0, 1),
        ("x", 0, 1),
        ([-1, 11], 0, 1),
        ([2, 9], 0, 1),
    ):
        with pytest.raises(ServeError):
            shares_of(shares, 10, steps, epochs)
        yield {"own": packed_array(own.astype(np.int32)), "shares": shares, "of": place(steps, epochs)}


def rates():
    for settings in (
        LearnSettings(),
        LearnSettings(schedule="cosine", warmup=0.2, lr=0.01, decay=0.9, rounds=5),
        LearnSettings(schedule="linear", warmup=0.0, rounds=3),
    ):
        for round, step in ((0, 0), (0, 4), (2, 3)):
            learn = asdict(settings) | asdict(settings.practice)
            moment = {"round": round, "step": step, "steps": 5}
            yield {"learn": learn, "moment": moment, "wanted": rate(settings, Moment(round, step, 5))}


@needs_node
def test_the_draws_are_those_of_numpy(tmp_path):
    made = (hashes, seeds, orders, rounds, shared, wrong, rates)
    run_check("draws", {each.__name__: list(each()) for each in made}, tmp_path)
