"""What a job may take of a device; the requests that are refused are in tests/serve/test_hostile_server.py."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sflam.errors import ServeError
from sflam.link.limits import Limits


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the system does not limit the memory of a process"
)
def test_the_system_holds_the_process_to_what_its_user_gave():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ServeError, match=r"more than the 8,000.0 MB of memory that --most-memory allows"):
        with Limits(memory=8_000_000_000).enforced():
            np.ones(2 << 30)  # 16 GiB
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with pytest.raises(RuntimeError, match="another kind"), Limits(memory=8_000_000_000).enforced():
        raise RuntimeError("of another kind")


def test_without_a_limit_nothing_is_set():
    with Limits().enforced():
        assert np.ones(10).sum() == 10
