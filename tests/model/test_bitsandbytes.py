"""``model.trunk_bits``: the server's frozen layers in 8 or 4 bits, or one clear refusal."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from peft import PeftModel
from torch import nn

import sflam
from sflam import config
from sflam.errors import ConfigError, ModelError, RunError
from sflam.model.backbone import load, quiet
from sflam.model.bitsandbytes import TrunkBits
from sflam.model.settings import ModelSettings
from sflam.model.verify import tolerance, verify
from tests.conftest import SHORT, assert_refused, sets
from tests.tiny import IMAGE, tiny

WIDE = IMAGE | {"hidden_size": 128, "intermediate_size": 256}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model wide enough for blocks of 64 weights."""
    folder = tmp_path_factory.mktemp("wide") / "vit"
    torch.manual_seed(0)
    with quiet():
        transformers.ViTForImageClassification(transformers.ViTConfig(**WIDE)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("bits", [4, 8])
def test_without_the_library_one_line_says_how_to_get_it(cli, wide, monkeypatch, bits):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    output = cli("train", *sets(*SHORT, f"model.name={wide}", f"model.trunk_bits={bits}"))
    assert_refused(
        output, rf"model.trunk_bits = {bits} needs the library bitsandbytes.*pip install.*or set model.trunk"
    )


def test_a_machine_that_cannot_is_reported_so(wide, monkeypatch):
    honest = importlib.import_module

    def broken(name, *more):
        if name != "bitsandbytes":
            return honest(name, *more)
        raise RuntimeError("no kernel image\nfor this device")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(
        ModelError, match=r"trunk_bits = 8 cannot be had.*\(no kernel image\); set model.trunk_bits = 0"
    ):
        load(str(wide), trunk=TrunkBits(8, 1, CPU))


def test_a_model_of_no_known_family_is_refused(tmp_path):
    with quiet():
        tiny("msn", dtype=torch.float32).model.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"must know the blocks before a model is loaded.*'vit_msn' is in no known"
    ):
        load(str(tmp_path), trunk=TrunkBits(8, 1, CPU))


def test_other_widths_are_refused():
    with pytest.raises(ConfigError, match=r"model.trunk_bits is 5; choose one of 0, 4, 8"):
        ModelSettings(trunk_bits=5)


def test_residual_aggregation_is_refused(small):
    with pytest.raises(
        ConfigError, match=r'model.trunk_bits = 4 and learn.aggregation = "residual" do not go'
    ):
        sflam.start(config.load(None, [*small, "model.trunk_bits=4", "learn.aggregation=residual"]))


@pytest.mark.parametrize("bits", [4, 8])
def test_only_the_servers_blocks_are_quantized_and_split_is_still_whole(wide, bits):
    library = pytest.importorskip("bitsandbytes")
    backbone = load(str(wide), classes=4, trunk=TrunkBits(bits, 2, CPU))
    kinds = {4: library.nn.Linear4bit, 8: library.nn.Linear8bitLt}
    for index, block in enumerate(backbone.model.vit.layers):
        layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
        assert len(layers) == 6 and all(isinstance(layer, kinds[bits]) == (index >= 2) for layer in layers)
    assert type(backbone.model.classifier) is nn.Linear
    for one in verify(backbone, [0, 2, 3]):
        assert one.largest <= tolerance(backbone)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_run_with_it_learns_resumes_and_leaves_an_adapter(wide, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    job = config.load(
        None, [*SHORT, f"model.name={wide}", f"model.trunk_bits={bits}", "learn.canonical=true"]
    )
    run = sflam.start(job, tmp_path / "run")
    plain = sflam.start(replace(job, model=replace(job.model, trunk_bits=0)), tmp_path / "plain")
    assert run.assembly.fit.server.weights < 0.4 * plain.assembly.fit.server.weights
    assert run.assembly.fit.device == plain.assembly.fit.device
    next(run.rounds())
    resumed = sflam.resume(tmp_path / "run")
    assert len(list(resumed.rounds())) == 1
    with pytest.raises(
        RunError, match=rf"would round what was trained to model.trunk_bits = {bits}; finish the run"
    ):
        resumed.finish(merge=True)
    result = resumed.finish()
    assert sflam.predict(result.run_dir).accuracy == result.accuracy
    base = transformers.ViTForImageClassification.from_pretrained(
        wide, num_labels=10, ignore_mismatched_sizes=True
    )
    PeftModel.from_pretrained(base, str(tmp_path / "run" / "adapter"))
