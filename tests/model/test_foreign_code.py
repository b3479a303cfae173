"""Code that comes with a model is never run, whatever the user would answer."""

from __future__ import annotations

import io
import json

import pytest

from sflam.errors import DataError, ModelError
from sflam.model.backbone import read_config
from sflam.model.tokenizer import Tokenizer

CODE = """
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedTokenizerFast

Path(__file__).with_name("ran").touch()

class MineConfig(PretrainedConfig):
    model_type = "mine"

class MineTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model that brings code, on a terminal whose user says yes to everything."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    monkeypatch.setattr("builtins.input", lambda *question: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    names = {"AutoConfig": "mine.MineConfig", "AutoTokenizer": [None, "mine.MineTokenizer"]}
    (model / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": names}))
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": names}))
    (model / "mine.py").write_text(CODE)
    return model


def test_a_config_of_its_own_is_refused(folder, tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        read_config(str(folder))
    assert not list(tmp_path.rglob("ran"))


def test_a_tokenizer_of_its_own_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="no tokenizer"):
        _ = Tokenizer(str(folder)).loaded
    assert not list(tmp_path.rglob("ran"))
