"""``[data]``: every impossible value is named, all of them together."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sflam.data.settings import DataSettings
from sflam.errors import ConfigError


def test_defaults_are_the_embedded_run() -> None:
    settings = DataSettings()
    assert (settings.name, settings.partition, settings.alpha) == ("digits", "dirichlet", 0.5)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        DataSettings(name="", partition="shards", alpha=0.0, minimum=0, test=1.0, label="")
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    for key in ("name", "partition", "alpha", "minimum", "test", "label"):
        assert f"data.{key}" in text


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_alpha_must_be_a_positive_number(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.alpha"):
        DataSettings(alpha=alpha)


def test_the_room_is_light_until_it_is_used() -> None:
    rooms = ("settings", "dataset", "sources", "local", "holdout", "partition", "batches", "images")
    code = "".join(f"import sflam.data.{room}\n" for room in rooms)
    code += "import sys; print([m for m in ('torch', 'transformers', 'sklearn', 'PIL') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
