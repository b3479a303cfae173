"""``[data]``: every impossible value is named, all of them together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sflam
from sflam.data.settings import DataSettings
from sflam.errors import ConfigError


def test_defaults_are_the_embedded_run() -> None:
    settings = DataSettings()
    assert (settings.name, settings.partition, settings.alpha) == ("digits", "dirichlet", 0.5)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        DataSettings(name="", partition="shard", alpha=0.0, minimum=0, test=1.0, shards=0, max_tokens=1)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 7
    for key in ("name", "partition", "alpha", "minimum", "test", "shards", "max_tokens"):
        assert f"data.{key}" in text


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_alpha_must_be_a_positive_number(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.alpha"):
        DataSettings(alpha=alpha)


def test_poisson_draws_do_not_share_out_a_step_of_the_fleet() -> None:
    assert DataSettings(draw="poisson", sampling="local").draw == "poisson"
    with pytest.raises(ConfigError, match=r"data\.draw is 'poisson'.*data\.sampling = \"local\""):
        DataSettings(draw="poisson", sampling="global")
    with pytest.raises(ConfigError, match=r"data\.draw is 'coins'.*passes"):
        DataSettings(draw="coins")


def test_the_room_is_light_until_it_is_used() -> None:
    rooms = sorted(path.stem for path in Path(sflam.__file__).with_name("data").glob("[a-z]*.py"))
    code = "".join(f"import sflam.data.{room}\n" for room in rooms)
    heavy = ("torch", "transformers", "sklearn", "PIL", "datasets", "pandas")
    code += f"import sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
