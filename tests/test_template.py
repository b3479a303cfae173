"""The template job and the reference of all keys follow the settings dataclasses."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from sflam import config
from sflam.cli.training import init
from sflam.errors import ConfigError
from sflam.template import keys, reference, template

DOCS = Path(__file__).parents[1] / "docs"


def test_every_key_is_explained():
    """``keys`` fails on a field whose docstring has no line for it; nothing is left empty."""
    job = config.Job()
    sections = [getattr(job, field.name) for field in fields(job) if is_dataclass(getattr(job, field.name))]
    expected = len(fields(job)) - len(sections) + sum(len(fields(section)) for section in sections)
    listed = list(keys())
    assert len(listed) == expected
    assert all(len(key.meaning) > 5 and key.default for key in listed)


def test_the_template_is_the_default_job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(template(), encoding="utf-8")
    assert config.load(path) == config.Job()


def test_the_reference_is_up_to_date():
    assert (DOCS / "reference" / "settings.md").read_text(encoding="utf-8") == reference(), (
        "run scripts/settings.py"
    )


def test_init_writes_once(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    init(path)
    assert "sflam train" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="exists already"):
        init(path)
    with pytest.raises(ConfigError, match="cannot be written"):
        init(tmp_path / "nowhere" / "job.toml")
