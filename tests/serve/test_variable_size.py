"""Bodies of variable size: any size within the bound is admitted, every other is refused before it is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sflam.codec.bodies import encode
from sflam.codec.messages import StepFrame
from sflam.codec.quantizers import quantizer
from sflam.sizes import HEADER_BYTES
from tests.serve.test_hostile import TERMS, Site

TOPK = replace(TERMS, scheme="topk")
LENGTHS = np.array([3, 4], np.int32)


def body(tokens, scheme="topk"):
    labels = np.array([0, 2], np.int32)
    return encode(StepFrame(0, 0, 0, quantizer(scheme).encode(tokens, 4, 1), 2, LENGTHS, labels))


DENSE = np.ones((7, 8), np.float32)
SPARSE = np.zeros((7, 8), np.float32)
SPARSE[0, 3] = 1


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        made.ingress.contracts = {n: replace(TOPK, device=n) for n in range(4)}
        yield made


@pytest.mark.parametrize("tokens", [DENSE, SPARSE, 0 * DENSE], ids=["dense", "sparse", "empty"])
def test_any_size_within_the_bound_is_admitted(site, tokens):
    sent = body(tokens)
    bound = TOPK.forward_bytes(2, 7, True)
    assert bound - TOPK.slack(7) <= len(sent) <= bound
    assert (len(sent) == bound) == (tokens is DENSE)
    assert site.ask(body=sent) == (200, b"answer 0")


def test_what_is_beyond_the_bound_or_below_an_empty_body_is_refused_unread(site):
    bound, slack = TOPK.forward_bytes(2, 7, True), TOPK.slack(7)
    without = TOPK.forward_bytes(2, 7, False)
    agreed = f"{without - slack}..{without} or {bound - slack}..{bound} were agreed"
    for size, status in ((bound + 1, 413), (without - slack - 1, 422), (HEADER_BYTES, 422)):
        found, text = site.ask(body=bytes(size))
        assert found == status and agreed in text.decode()
    assert site.computed == []


def test_a_body_that_is_shorter_than_its_values_need_changes_nothing(site):
    whole = body(DENSE)
    for sent in (whole[:-1], body(SPARSE) + b"\0", body(SPARSE)[:-1] + b"\x80"):
        assert site.ask(body=sent)[0] == 422
    assert site.ask(body=body(DENSE, "uniform"))[0] in (413, 422)
    assert site.computed == [] and site.ask(body=whole)[0] == 200


def test_a_scheme_of_fixed_size_has_no_slack():
    assert TERMS.slack(7) == 0 and TOPK.slack(7) == quantizer("topk").bound_bytes(7, 8, 4) - 28
    assert TOPK.largest() >= TOPK.forward_bytes(2, 10, True)
