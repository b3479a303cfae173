"""What a device needs after a crash, in one file that is whole or absent: plain values and arrays, nothing pickled.

The layout is that of safetensors, its metadata the plain values as JSON and the SHA-256 of the file (taken with
sixty-four zeros in the hash's own place). Written array by array, so that no copy of all of them is held.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sflam.errors import RunError
from sflam.files import from_json, reading, replacing, writing
from sflam.link.half import Arrays

TYPES = {
    tag: np.dtype(code)
    for tag, code in (
        *(("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("I64", "<i8"), ("I32", "<i4")),
        *(("U32", "<u4"), ("U16", "<u2"), ("U8", "u1"), ("BOOL", "?")),
    )
}
TAGS = {dtype: tag for tag, dtype in TYPES.items()}
BLANK = "0" * 64
LONGEST_HEADER = 1 << 24
CHUNK = 1 << 20


def save(path: Path, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Make ``plain`` (what JSON can hold) and ``arrays`` the content of the file, all or nothing.

    Raises:
        RunError: the disk refuses; what the file held before is untouched.
    """
    table: dict[str, Any] = {}
    start = 0
    named = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, array in named:
        tag = TAGS[array.dtype]
        table[name] = {
            "dtype": tag,
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    metadata = {"plain": json.dumps(plain, allow_nan=True), "sha256": BLANK}
    text = json.dumps({"__metadata__": metadata} | table, separators=(",", ":")).encode()
    head = len(text).to_bytes(8, "little") + text
    at = head.index(BLANK.encode(), head.index(b'"sha256":"'))
    with (
        writing(f"the state of this device in {path.parent}", "free space, or choose another --folder"),
        replacing(path) as file,
    ):
        seal = hashlib.sha256(head)
        file.write(head)
        for _, array in named:
            for piece in _pieces(array):
                seal.update(piece)
                file.write(piece)
        file.seek(at)
        file.write(seal.hexdigest().encode())


def load(path: Path) -> tuple[dict[str, Any], Arrays] | None:
    """Return what :func:`save` wrote; None where there is no file.

    Raises:
        RunError: the file cannot be read, or is damaged.
    """
    if not path.is_file():
        return None
    with reading(path, "make it readable, or delete it"), path.open("rb") as file:
        try:
            return _read(file)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged ({error}); delete it: this device then sits out the round under way"
            ) from error


def _read(file: BinaryIO) -> tuple[dict[str, Any], Arrays]:
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= LONGEST_HEADER:
        raise ValueError("no header")
    text = file.read(size)
    table = from_json(text)
    metadata = table.pop("__metadata__")
    found = str(metadata["sha256"]).encode()
    seal = hashlib.sha256(size.to_bytes(8, "little"))
    seal.update(text.replace(b'"sha256":"' + found, b'"sha256":"' + BLANK.encode(), 1))
    while piece := file.read(CHUNK):
        seal.update(piece)
    if seal.hexdigest().encode() != found:
        raise ValueError("its hash does not match")
    arrays: Arrays = {}
    for name, entry in table.items():
        dtype, shape = TYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
        file.seek(8 + size + int(entry["data_offsets"][0]))
        arrays[name] = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
    return from_json(metadata["plain"]), arrays


def _pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    """Yield the bytes of an array, a megabyte at a time."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK].data
