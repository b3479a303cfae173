"""A network of arrays that do not belong together is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sflam.errors import AllocationError
from sflam.network.network import PER_DEVICE, PER_SERVER
from sflam.network.reference import ref_a


@pytest.mark.parametrize("name", [*PER_DEVICE, *PER_SERVER, "positions", "server_positions", "names"])
def test_an_array_of_another_shape_is_named(name: str) -> None:
    wrong = ("only one",) if name == "names" else np.ones((2, 3))
    size = {"positions": [4, 2], "server_positions": [1, 2]}.get(name, [1] if name in PER_SERVER else [4])
    with pytest.raises(AllocationError) as caught:
        replace(ref_a(4), **{name: wrong})
    assert f"{name} has shape" in str(caught.value) and f"it must be {size}" in str(caught.value)


def test_gains_without_servers_are_named() -> None:
    with pytest.raises(AllocationError, match=r"gain has shape \[4\]; it must be \[servers, devices\]"):
        replace(ref_a(4), gain=np.ones(4))
