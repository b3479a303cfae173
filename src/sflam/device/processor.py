"""Which matrix kernels OpenBLAS takes.

Its own choice knows the processors of its day: on a later one with AVX-512 it fell back to Haswell's kernels, which
took 1.7 times the time (measured: AMD Zen 5, OpenBLAS 0.3.31). The instructions a processor lists are the better
guide. It reads OPENBLAS_CORETYPE once, when NumPy is imported; a value the user set is left alone.
"""

from __future__ import annotations

import os
from pathlib import Path

NAME = "OPENBLAS_CORETYPE"
CPUINFO = Path("/proc/cpuinfo")
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
AVX2 = {"avx2", "fma"}


def choose_kernels(cpuinfo: Path = CPUINFO) -> None:
    """Set OPENBLAS_CORETYPE by the processor's instructions, unless it is set or they are not known."""
    if NAME in os.environ:
        return
    flags = _flags(cpuinfo)
    if flags >= AVX512:
        os.environ[NAME] = "SKYLAKEX"
    elif flags >= AVX2:
        os.environ[NAME] = "HASWELL"


def _flags(cpuinfo: Path) -> set[str]:
    """Return the instructions that the first processor lists; nothing where there is no such file."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return set(value.split())
    except OSError:
        return set()
    return set()
