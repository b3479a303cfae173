"""What the engine brings into a process."""

from __future__ import annotations

import subprocess
import sys


def test_numpy_and_nothing_heavier() -> None:
    script = (
        "import sys, sflam.device.engine, sflam.device.weights;"
        "heavy = {'torch', 'transformers', 'scipy', 'pandas', 'httpx', 'typer', 'rich', 'safetensors'};"
        "heavy &= set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
