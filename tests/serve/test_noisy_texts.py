"""Served texts with noise have a bound on their tokens, which an epsilon counts."""

from __future__ import annotations

import pytest

from sflam.config import load
from sflam.errors import ConfigError
from sflam.run.assemble import assemble
from sflam.run.conditions import SERVE
from sflam.run.protection import tokens_of
from sflam.serve.contracts import contracts_of
from tests.reviews import write_reviews


def test_texts_without_a_bound_are_refused_and_with_one_count_as_many(tmp_path):
    write_reviews(tmp_path)
    own = (f"model.name={tmp_path / 'bert'}", f"data.name={tmp_path / 'reviews.csv'}", "fleet.devices=2")
    noise = ("privacy.clip=1", "privacy.noise=1", "learn.device=cpu")
    found = assemble(load(None, [*own, *noise, "data.max_tokens=0"]), command=SERVE)
    with pytest.raises(ConfigError, match=r"set data\.max_tokens, for example to \d+"):
        contracts_of(found, found.halves)
    bounded = assemble(load(None, [*own, *noise, "data.max_tokens=9"]), command=SERVE)
    assert {contract.tokens for contract in contracts_of(bounded, bounded.halves).values()} == {
        tokens_of(bounded)
    }
