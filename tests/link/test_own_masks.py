"""A device without the library that masks need is refused before it joins, by one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sflam import config
from sflam.device.agent import Bringing, client_of
from sflam.errors import SecureSumError
from sflam.link.own_masks import masks_of
from sflam.secure import installed

SUMS = ["privacy.secure_aggregation=true", "quant.adapters_scale=common"]


def test_a_device_without_the_library_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(SecureSumError, match=r"pip install 'sflam\[device-secure\]'$"):
        masks_of(config.load(None, SUMS), print)


def test_a_job_without_sums_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    shown: list[str] = []
    masks = masks_of(config.load(None), shown.append)
    assert masks(None, None, 8) is None and not shown  # type: ignore[arg-type]


def test_a_lean_device_asks_for_nothing_but_the_job_before_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = config.load(None, SUMS)
    asked: list[str] = []

    class Served:
        settings = staticmethod(lambda folder: job)

    class Silent:
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            raise AssertionError(f"{name} is asked for before it is clear that the device can take part")

    monkeypatch.setattr("sflam.device.agent.described", lambda link: Served())
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(SecureSumError, match="needs the cryptography library"):
        client_of(Silent(), Bringing(share=True, folder=tmp_path))  # type: ignore[arg-type]
    assert not asked
