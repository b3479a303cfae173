"""Every example job is read as it stands, and trains a tiny model of its family on data of its shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import Save
from tests.tiny import DEPTH, MODELS, is_image, tiny

import sflam
from sflam import config
from sflam.model.backbone import quiet
from sflam.model.families import FAMILIES

JOBS = sorted((Path(__file__).parents[2] / "examples" / "jobs").glob("*.toml"))
WORDS = ["[PAD]", "[UNK]", *"good bad film plot a the of was very and".split()]
LETTERS = [*"bcdefghijklmnopqrstuvwxyz", "Ġ"]
"""Qwen2's own tokenizer, which transformers takes for the family whatever the folder says, spells words it lacks."""


def kind_of(path: Path) -> str:
    """Return the tiny model of an example: the family stands first in its file's name."""
    family = path.stem.partition("-")[0]
    lm = not config.load(path).data.label
    kinds = [kind for kind in MODELS if kind.partition("-")[0] == family]
    return next((kind for kind in kinds if kind.endswith("-lm") == lm), kinds[0])


def test_there_is_an_example_for_every_family() -> None:
    assert {path.stem.partition("-")[0] for path in JOBS} == set(FAMILIES)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, unrendered: Save) -> Path:
    """Tiny models, where texts are read with a tokenizer of a few words."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    folder = tmp_path_factory.mktemp("models")
    words = Tokenizer(
        WordLevel({word: number for number, word in enumerate([*WORDS, *LETTERS])}, unk_token="[UNK]")
    )
    words.pre_tokenizer = Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="and"
    )
    for kind in MODELS:
        with quiet():
            tiny(kind, dtype=torch.float32).model.save_pretrained(folder / kind)
        if not is_image(kind):
            tokenizer.save_pretrained(folder / kind)
    return folder


def data_for(job: sflam.Job, kind: str, folder: Path) -> list[str]:
    """Write samples with the columns the job names, and return the settings that read them."""
    draw = np.random.default_rng(0)
    if is_image(kind):
        for index in range(48):
            path = folder / ("dark", "light")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 128, (16, 16), np.uint8) + np.uint8(100 * (index % 2))).save(
                path
            )
        return [f"data.name={folder}", "data.input=", "data.label=label"]
    file = folder / "texts.jsonl"
    rows = []
    for index in range(60):
        words = " ".join(draw.choice(WORDS[2:], draw.integers(3, 9)))
        label = {job.data.label: index % 2} if job.data.label else {}
        rows.append(json.dumps({job.data.input or "text": words} | label))
    file.write_text("\n".join(rows))
    return [f"data.name={file}", "data.config="]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_an_example_trains(path: Path, models: Path, tmp_path: Path) -> None:
    job, kind = config.load(path), kind_of(path)
    assert path.read_text().startswith("# ")
    assert max((job.model.cut, *job.fleet.cuts)) <= DEPTH
    small = [f"model.name={models / kind}", "learn.rounds=2", "learn.local_steps=1", "learn.batch=2"]
    small += ["model.dtype=float32", "learn.device=cpu", "learn.local_epochs=1"]
    if not job.fleet.cuts:
        small += ["fleet.devices=4", "fleet.selected=2"]
    result = sflam.train(
        config.load(path, [*small, *data_for(job, kind, tmp_path / "data" if is_image(kind) else tmp_path)]),
        tmp_path / "run",
    )
    assert result.rounds == 2 and (result.perplexity is None) == bool(job.data.label)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
