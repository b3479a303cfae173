"""What CONTRIBUTING.md shows works: every block runs as it stands, in at most ten lines, and what it adds is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.tiny import IMAGE

import sflam
from sflam import config
from sflam.allocate import registry as allocators
from sflam.codec import quantizers, torch_quantizers
from sflam.learn import methods
from sflam.model import families
from sflam.model.backbone import quiet
from sflam.model.verify import tolerance, verify
from sflam.planner.cell import decide
from sflam.registry import OWN
from sflam.run.job_model import open_model

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTIONS = {
    title: block
    for title, text in re.findall(
        r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
    for block in re.findall(r"```python\n(.*?)```", text, re.S)
}
SHORT = ["learn.rounds=1", "learn.local_steps=1", "fleet.devices=2", "learn.device=cpu"]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Take back what a block adds."""
    tables = (
        allocators.CELL_METHODS,
        quantizers.QUANTIZERS,
        torch_quantizers.TORCH_QUANTIZERS,
        families.FAMILIES,
        methods.METHODS,
    )
    before = [dict(each) for each in tables]
    own = {kind: dict(names) for kind, names in OWN.items()}
    yield
    for each, kept in zip(tables, before, strict=True):
        each.clear()
        each.update(kept)  # type: ignore[arg-type]
    OWN.update(own)


def run_block(title: str) -> dict[str, Any]:
    """Run the block of a section, and return its names."""
    names: dict[str, Any] = {"__name__": "contributing"}
    exec(compile(SECTIONS[title], f"{PAGE.name}: {title}", "exec"), names)
    return names


@pytest.mark.parametrize("title", SECTIONS)
def test_a_block_has_at_most_ten_lines(title: str) -> None:
    lines = [
        line for line in SECTIONS[title].splitlines() if line and not line.startswith(("from ", "import "))
    ]
    assert len(lines) <= 10


def test_a_family(tmp_path: Path) -> None:
    shape = transformers.ViTMSNConfig(**IMAGE)
    with quiet():
        transformers.ViTMSNForImageClassification(shape).save_pretrained(tmp_path / "model")
    assert open_model(str(tmp_path / "model")).family.gates is not None  # split by its structure
    run_block("A family of models")
    backbone = open_model(str(tmp_path / "model"), dtype="float64")
    assert backbone.family.name == "vit_msn" and backbone.family.gates is None
    assert all(item.largest <= tolerance(backbone) for item in verify(backbone, range(backbone.depth + 1)))
    job = config.load(None, [*SHORT, f"model.name={tmp_path / 'model'}"])
    assert sflam.train(job, tmp_path / "run").rounds == 1


def test_a_quantizer(tmp_path: Path) -> None:
    run_block("A quantizer")
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    halved, uniform = quantizers.quantizer("halved"), quantizers.quantizer("uniform")
    packed = halved.encode(x, 8, 0)
    assert packed.nbytes == halved.nbytes(3, 8, 8) == uniform.nbytes(3, 8, 8)
    assert np.abs(halved.decode(packed) - x).max() < 0.1
    trained = sflam.train(config.load(None, [*SHORT, "quant.scheme=halved"]), tmp_path / "run")
    assert trained.bytes_up > 0


def test_a_method(tmp_path: Path) -> None:
    run_block("A method")
    trained = sflam.train(config.load(None, [*SHORT, "learn.method=sfl-v2-q"]), tmp_path / "run")
    floats = sflam.train(config.load(None, [*SHORT, "learn.method=sfl-v2"]), tmp_path / "floats")
    assert trained.bytes_up < floats.bytes_up / 2


def test_a_step_of_the_round(tmp_path: Path) -> None:
    around = run_block("A step of the round")["HalfWay"]
    job = config.load(None, SHORT)
    plain, half = sflam.start(job, tmp_path / "plain"), sflam.start(job, tmp_path / "half", around=around)
    first = dict(plain.state)
    list(plain.rounds()), list(half.rounds())
    for name, value in half.state.items():
        assert torch.allclose(value, (first[name] + plain.state[name]) / 2, atol=1e-6), name


def test_an_allocator(tmp_path: Path) -> None:
    run_block("An allocator")
    network = ["network.devices=4", "network.scenario=refA"]
    own = decide(config.load(None, [*network, "plan.method=by-payload"])).plan
    best = decide(config.load(None, network)).plan
    assert own.method == "by-payload" and own.objective >= best.objective
    job = config.load(None, [*SHORT, "network.simulate=true", "plan.method=by-payload"])
    run = sflam.start(job, tmp_path / "run")
    assert all(record.charge is not None for record in run.rounds())


def test_every_section_with_a_block_is_used() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert SECTIONS and [title for title in SECTIONS if f'run_block("{title}")' not in here] == []
