"""What the tests of the network share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """Canonical mode's one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def site(tmp_path):
    """A server with one open round and no trunk."""
    from tests.serve.test_hostile import Site

    with Site(tmp_path) as made:
        yield made
