"""Which kernels OpenBLAS is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sflam.device import processor


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ("fpu avx avx2 fma avx512f avx512cd avx512bw avx512dq avx512vl", "SKYLAKEX"),
        ("fpu avx avx2 fma avx512f", "HASWELL"),
        ("fpu sse2", None),
    ],
)
def test_by_the_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, chosen: str | None
) -> None:
    monkeypatch.setenv(processor.NAME, "")  # so that it is put back as it was
    monkeypatch.delenv(processor.NAME)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: any\nflags\t\t: {flags}\nbugs\t: x\n")
    processor.choose_kernels(tmp_path / "cpuinfo")
    assert os.environ.get(processor.NAME) == chosen
    monkeypatch.setenv(processor.NAME, "ZEN")
    processor.choose_kernels(tmp_path / "cpuinfo")
    assert os.environ[processor.NAME] == "ZEN"


def test_other_systems_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processor.NAME, "")  # so that it is put back as it was
    monkeypatch.delenv(processor.NAME)
    processor.choose_kernels(tmp_path / "missing")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    processor.choose_kernels(tmp_path / "arm")
    assert processor.NAME not in os.environ


def test_before_numpy_and_without_torch() -> None:
    """The choice comes before NumPy is imported, and nothing heavy comes with the engine."""
    script = (
        "import sys, sflam.device; assert 'numpy' not in sys.modules;"
        "import sflam.device.engine, sflam.device.weights;"
        "heavy = {'torch', 'transformers', 'scipy', 'pandas', 'httpx', 'typer', 'rich', 'safetensors'};"
        "heavy &= set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
