"""What the tests of whole runs share: a tiny model, a few samples, the command line in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the network, nor waits until it is given up

# Seconds on one core; whatever a test is about is set on top.
SHORT = ("learn.rounds=2", "learn.local_steps=2", "learn.batch=4", "fleet.devices=3", "learn.device=cpu")


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code, and the lines it wrote."""

    code: int
    out: list[str]
    err: list[str]


@pytest.fixture
def sflam(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run the real command line in this process; a traceback is a failure of the test."""
    from sflam import cli

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sflam", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return Said(left.value.code or 0, said.out.splitlines(), said.err.splitlines())

    return run


def sets(*settings: str) -> list[str]:
    """Return the command line's ``--set`` options."""
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny ViT in ``vit/`` and sixty digits in ``digits.npz``."""
    import torch

    from sflam.data.sources import digits
    from sflam.model.backbone import quiet
    from tests.tiny import tiny

    folder = tmp_path_factory.mktemp("room")
    with quiet():
        tiny("vit", dtype=torch.float32).model.save_pretrained(folder / "vit")
    whole = digits()
    np.savez(folder / "digits.npz", image=whole.inputs[:60], label=whole.labels[:60])
    return folder


@pytest.fixture(scope="session")
def small(room: Path) -> tuple[str, ...]:
    """Settings of a run on the tiny model: a fraction of a second a round."""
    return (*SHORT, f"model.name={room / 'vit'}", f"data.name={room / 'digits.npz'}", "model.rank=2")
