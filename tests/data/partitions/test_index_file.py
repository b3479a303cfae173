"""``data.partition = "file"``: rows of the source per device, in any of its forms; each fault is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.data.groups import origin_of
from sflam.data.partition import share_out
from sflam.data.settings import DataSettings
from sflam.data.sources import load
from sflam.errors import DataError
from tests.data.samples import assert_partition, labelled


def of_file(path: Path, devices: int = 2, samples: int = 6, minimum: int = 1):
    chosen = DataSettings(partition="file", indices=str(path), minimum=minimum)
    train = labelled(np.zeros(samples, np.int64), origin_of(samples, samples))
    return share_out(chosen, train, devices, seed=0)


def written(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values))
    return path


@settings(deadline=None)
@given(owners=st.lists(st.integers(0, 3), min_size=4, max_size=40), form=st.integers(0, 2))
def test_what_is_listed_is_what_devices_hold(tmp_path_factory, owners: list[int], form: int) -> None:
    owners = [0, 1, 2, 3, *owners]
    lists = [np.flatnonzero(np.array(owners) == device)[::-1] for device in range(4)]  # in any order
    path = tmp_path_factory.mktemp("lists") / ("indices.npz" if form == 2 else "indices.json")
    if form == 0:
        written(path, [own.tolist() for own in lists])
    elif form == 1:
        written(path, {str(device): own.tolist() for device, own in enumerate(lists)})
    else:
        np.savez(path, *lists)
    shared = of_file(path, 4, len(owners))
    assert_partition(shared.parts, len(owners), 4, 1)
    assert [part.tolist() for part in shared.parts] == [sorted(own.tolist()) for own in lists]


FAULTS: dict[str, tuple[object, str]] = {
    "another number of devices": ([[0, 1, 2, 3, 4, 5]], "lists 1 devices, but fleet.devices is 2"),
    "a row twice on a device": ([[0, 1, 1], [2, 3, 4, 5]], "device 0 lists row 1 twice"),
    "a row on two devices": ([[0, 1, 2], [2, 3, 4, 5]], "row 2 is on device 0 and on device 1"),
    "a gap": ([[0, 1], [2, 5]], "2 of 6 training samples are on no device, row 3 first"),
    "a row beyond": ([[0, 1, 2], [3, 4, 5, 6]], "device 1 lists row 6, but few has the rows 0 to 5"),
    "a row below": ([[0, 1, 2, -1], [3, 4, 5]], "device 0 lists row -1"),
    "too few": ([[0, 1, 2, 3, 4, 5], []], "device 1 has 0 training samples .* fewer than data.minimum .1."),
    "no list": (7, "holds no partition .it holds int."),
    "numbers with a point": ([[0.5], [1]], "device 0 does not list whole numbers"),
    "words": ([["a"], [1]], "device 0 does not list whole numbers"),
    "a list within": ([[[0]], [1]], "device 0 does not list whole numbers"),
    "a device that is no list": ([0, 1], "device 0 does not list whole numbers"),
    "names without a number": ({"a": [0], "b": [1]}, "its names do not end in 0, 1, 2"),
    "names with a gap": ({"0": [0], "2": [1]}, "its names do not end in 0, 1, 2"),
    "truth values": ([[True], [1]], "device 0 does not list whole numbers"),
    "too large for a row": ([[2**70], [1]], "device 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error(fault: str, tmp_path: Path) -> None:
    values, message = FAULTS[fault]
    with pytest.raises(DataError, match=message):
        of_file(written(tmp_path / "indices.json", values))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; data.indices names a .json or .npz"):
        of_file(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text("[[0, 1")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "words.npz", np.array(["a"]), np.array(["b"]))
    np.savez(tmp_path / "objects.npz", np.array([[1], [2, 3]], dtype=object), allow_pickle=True)
    for name in ("torn.json", "torn.npz", "words.npz", "objects.npz"):
        with pytest.raises(DataError, match="holds no partition"):
            of_file(tmp_path / name)


def test_rows_are_those_of_the_source_whatever_is_held_out(tmp_path: Path) -> None:
    """One file serves any seed: what a seed holds out is skipped on its device."""
    labels = np.arange(40) % 4
    np.savez(tmp_path / "few.npz", image=np.arange(40, dtype=np.uint8).reshape(-1, 1, 1), label=labels)
    path = written(tmp_path / "indices.json", [list(range(13)), list(range(13, 40))])
    chosen = DataSettings(name=str(tmp_path / "few.npz"), partition="file", indices=str(path), input="image")
    held = []
    for seed in (0, 1):
        train = load(chosen, seed).train
        parts = share_out(chosen, train, 2, seed).parts
        held.append(len(train))
        assert train.inputs[parts[0]].max() < 13 <= train.inputs[parts[1]].min()  # a pixel is its row
        assert_partition(parts, len(train), 2, 1)
    assert held == [32, 32]
