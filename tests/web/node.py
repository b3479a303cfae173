"""JavaScript of the page in node: a check is a module beside this one, and what it is given is JSON."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "src" / "sflam" / "web" / "static"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def packed_array(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON: its type, and its little-endian bytes in base 64."""
    array = np.ascontiguousarray(array)
    return {"array": array.dtype.name, "bytes": base64.b64encode(array.tobytes()).decode()}


def run_check(name: str, given: Any, folder: Path, *arguments: str) -> str:
    """Run ``check_NAME.mjs`` with ``given``; return what it printed, fail with its complaints."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(given), encoding="utf-8")
    command = ["node", str(HERE / f"check_{name}.mjs"), str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
