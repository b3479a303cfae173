"""A comparison of a job with personal parts or ranks: every method has what it can have, and is then a valid run."""

from __future__ import annotations

import pytest

from sflam import config
from sflam.compare.variants import variant
from sflam.learn.methods import METHODS
from sflam.run.compatibility import problems_of

KEPT = {
    "head": {"sflam", "sfl-v1", "fedlora"},
    "device-half": {"sflam", "sfl-v1", "sfl-v2", "sflam-mixed"},
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize(
    "method", ["sflam", "sflam-mixed", "sfl-v1", "sfl-v2", "sl", "fedlora", "fedavg", "local", "central"]
)
def test_what_a_method_cannot_keep_is_left_out(kind: str, method: str) -> None:
    assert method in METHODS
    wanted = config.load(
        None, [f"learn.personal={kind}", "fleet.devices=2", "fleet.ranks=[1,2]", "model.rank=2"]
    )
    job = variant(wanted, method, 0)
    assert not problems_of(job, "train")
    assert job.learn.personal == (kind if method in KEPT[kind] else "none")
    averaged = method not in ("sl", "fedavg", "local", "central")
    assert job.fleet.ranks == ((1, 2) if averaged else ())
