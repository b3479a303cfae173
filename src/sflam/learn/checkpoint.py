"""Checkpoints that are whole or absent: one safetensors file each, committed by one rename.

A state is a nested structure; see :mod:`sflam.learn.nested`. Its tensors are the file's tensors; everything else is a
JSON skeleton in the file's metadata, beside the SHA-256 of the file (taken with sixty-four zeros in the hash's own
place). Nothing is pickled, so a checkpoint from a stranger runs no code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sflam.errors import RunError
from sflam.files import from_json, reading, remove_leftovers, replace_file, sync_folder, writing
from sflam.learn.nested import restored, skeleton_of

KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{5,})\.safetensors")
_SEAL = b'"sha256":"%b"'
_BLANK = b"0" * 64


def save(folder: Path, state: Mapping[Any, Any], *, keep: int = KEPT) -> Path:
    """Commit ``state`` as the newest checkpoint of ``folder`` and return its file; the ``keep`` newest are kept.

    Tensors of any device are stored by value: two names of one tensor load as two tensors. Raises RunError
    when the disk refuses (the checkpoints from before are then untouched) and TypeError for a value that
    cannot be stored.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(skeleton_of(state, tensors, "state"), allow_nan=False)
    body = _sealed(safetensors.torch.save(tensors, {"skeleton": skeleton, "sha256": _BLANK.decode()}))
    with writing(f"checkpoint in {folder}", "free space, or choose another run folder"):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        found = checkpoints(folder)
        path = folder / f"checkpoint-{_number(found[-1]) + 1 if found else 1:05d}.safetensors"
        replace_file(path, body)
        for old in [*found, path][:-keep]:
            old.unlink(missing_ok=True)
        sync_folder(folder)
    return path


def load(folder: Path) -> dict[Any, Any] | None:
    """Return the newest state, its tensors on the CPU, or None when ``folder`` holds no checkpoint.

    Raises RunError when the newest file is damaged: an older state is never taken silently.
    """
    found = checkpoints(folder)
    return _read(found[-1], found[:-1]) if found else None


def roll_back(folder: Path, rounds: int) -> None:
    """Make the checkpoint of so many rounds done the newest, by removing the newer ones; it is read first.

    Raises:
        RunError: there is none, or it is damaged; nothing is removed then.
    """
    found, known = checkpoints(folder), []
    for at in reversed(range(len(found))):
        done = _read(found[at], found[:at]).get("round")
        known.append(str(done))
        if done == rounds:
            for newer in reversed(found[at + 1 :]):  # newest first: a crash in between leaves a newest one
                with writing(newer, "delete it"):
                    newer.unlink()
            sync_folder(folder)
            return
    raise RunError(
        f"{folder} keeps no checkpoint of {rounds} rounds done; it has those of {', '.join(reversed(known)) or 'none'}"
    )


def _read(path: Path, older: Sequence[Path]) -> dict[Any, Any]:
    with reading(path, "make it readable, or delete it"):
        raw = path.read_bytes()
    try:
        skeleton = _unsealed(raw)
        tensors = safetensors.torch.load(raw)
        state = restored(from_json(skeleton), tensors)
        if not isinstance(state, dict):
            raise ValueError("it holds no mapping")
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        then = f"resume from {older[-1].name}" if older else "start the run again"
        raise RunError(f"{path} is damaged ({str(error)[:200]}); delete that file to {then}") from error
    return state


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint files of ``folder``, oldest first; empty when there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None, path
    return int(found[1])


def _header(body: bytes) -> bytes:
    """Return the JSON header of a safetensors file: a little-endian uint64 gives its length."""
    return body[8 : 8 + int.from_bytes(body[:8], "little")]


def _sealed(body: bytes) -> bytes:
    blank = _SEAL % _BLANK
    assert _header(body).count(blank) == 1, "quotes inside the skeleton are escaped, so the seal is unique"
    return body.replace(blank, _SEAL % hashlib.sha256(body).hexdigest().encode(), 1)


def _unsealed(body: bytes) -> str:
    """Return the skeleton once the hash holds; raises ValueError when it does not."""
    header = _header(body)
    try:
        metadata = from_json(header)["__metadata__"]
        seal, skeleton = str(metadata["sha256"]).encode(), str(metadata["skeleton"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its header cannot be read") from None
    if header.count(_SEAL % seal) != 1:
        raise ValueError("its SHA-256 is not where it was written")
    # The header comes first in the file, so the first occurrence is the header's.
    actual = hashlib.sha256(body.replace(_SEAL % seal, _SEAL % _BLANK, 1)).hexdigest()
    if actual.encode() != seal:
        raise ValueError(f"its content has SHA-256 {actual[:12]}..., not {seal.decode()[:12]}...")
    return skeleton
