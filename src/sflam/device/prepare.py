"""Prepares a device's samples in a process of its own, whose memory is gone before training begins.

Reads one JSON object (``settings``, ``model``, ``target``) from the standard input and writes one to the standard
output: ``notes`` and ``peak`` bytes, or an ``error``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sflam.data.preparation import prepare, prepared_name, preprocessor_of_folder
from sflam.data.settings import DataSettings
from sflam.device.memory import peak_bytes
from sflam.errors import DataError, SflamError
from sflam.values import fields_of


def prepared(settings: DataSettings, model: Path, cache: Path, notify: Callable[[str], None]) -> Path:
    """Return the file with the samples of a path, made unless ``cache`` has it already.

    Raises:
        DataError: they cannot be used.
    """
    source = Path(settings.name).expanduser()
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; a device brings a path of its own with --data")
    target = cache / prepared_name(settings, model)
    if target.is_file():
        return target
    for old in cache.glob("samples-*.npz"):  # of other data, or of this before it changed
        old.unlink(missing_ok=True)
    import subprocess  # half a megabyte, and needed once

    asked = {"settings": fields_of(settings), "model": str(model), "target": str(target)}
    done = subprocess.run(
        [sys.executable, "-m", "sflam.device.prepare"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        reason = " ".join(done.stderr.split()[-40:]) or f"it ended with {done.returncode}"
        raise DataError(f"{source}: its samples could not be prepared ({reason})") from None
    if "error" in answer:
        raise DataError(answer["error"])
    for note in answer["notes"]:
        notify(note)
    notify(
        f"samples prepared in a process of its own ({answer['peak'] / 2**20:.0f} MB at its peak), kept in {target}"
    )
    return target


def main() -> None:
    """Answer the request on the standard input."""
    asked: dict[str, Any] = json.load(sys.stdin)
    notes: list[str] = []
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in asked["settings"].items()
    }
    try:
        prepare(
            DataSettings(**values), preprocessor_of_folder(Path(asked["model"])), Path(asked["target"]), notes
        )
        answer: dict[str, Any] = {"notes": notes, "peak": peak_bytes()}
    except SflamError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
