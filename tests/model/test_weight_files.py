"""``model.trunk_weights = "file"``: blocks read as they run are the blocks in memory, bit for bit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import sflam
from sflam.errors import ModelError
from sflam.model.backbone import load, quiet
from sflam.model.families import blocks_of
from sflam.model.file_blocks import FileBlocks
from sflam.run.trunk_weights import left_in_files
from tests.conftest import SHORT
from tests.model.placed import CPU, CUT, FILE, MEMORY, halves_of, opened, saved, trained
from tests.tiny import EVERY_KIND, batch, tiny


def assert_equal(found, wanted):
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("stored", [torch.float64, torch.float32], ids=["mapped", "copied"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_trunk_in_its_files_computes_what_one_in_memory_does(tmp_path, kind, stored):
    how = saved(kind, tmp_path, stored)
    wanted = trained(halves_of(opened(how, MEMORY)), kind)
    backbone = opened(how, FILE)
    assert backbone.elsewhere > 0
    assert_equal(trained(halves_of(backbone), kind), wanted)


@pytest.mark.parametrize("kind", ["vit", "llama-lm"])
def test_a_block_computed_again_in_the_backward_finds_its_weights(tmp_path, kind):
    how = saved(kind, tmp_path, torch.float32)
    wanted = trained(halves_of(opened(how, MEMORY)), kind, checkpointing=True)
    assert_equal(trained(halves_of(opened(how, FILE)), kind, checkpointing=True), wanted)


def test_the_weights_of_one_block_are_there_at_a_time(tmp_path):
    backbone = opened(saved("vit", tmp_path, torch.float32), FILE)
    blocks = blocks_of(backbone.model, backbone.family)
    seen = []

    def filled(*_):
        seen.append([any(p.untyped_storage().size() for p in block.parameters()) for block in blocks])

    for block in blocks:
        block.register_forward_hook(filled)
    with torch.no_grad():
        backbone.model(**batch("vit")["inputs"])
    assert seen == [[True, False, False], [True, True, False], [True, False, True]]
    sizes = [sum(p.nbytes for p in block.parameters()) for block in blocks[CUT:]]
    assert backbone.elsewhere == sum(sizes) - max(sizes)


def test_the_whole_model_runs_in_its_files(tmp_path):
    how = saved("bert", tmp_path, torch.float32)
    one = batch("bert")
    outs = [
        opened(how, replace(FILE, trunk_weights=where)).model.eval()(**one["inputs"]).logits
        for where in ("memory", "file")
    ]
    assert torch.equal(*outs)


def test_a_checkpoint_in_several_files_is_read(tmp_path):
    how = saved("gpt2", tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    wanted = trained(halves_of(opened(how, MEMORY)), "gpt2")
    assert_equal(trained(halves_of(opened(how, FILE)), "gpt2"), wanted)


def test_a_model_of_no_known_family_is_refused(tmp_path):
    with quiet():
        tiny("msn", dtype=torch.float32).model.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r'trunk_weights = "file" must know the blocks.*trunk_weights = "memory"'
    ):
        opened({"name": str(tmp_path)}, FILE)


def test_a_checkpoint_that_lacks_a_layer_of_a_block_is_refused(tmp_path):
    how = saved("vit", tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    held = load_file(file)
    lost = [name for name in held if re.search(r"layer\.2.*query|layers\.2.*q_proj", name)]
    save_file({name: tensor for name, tensor in held.items() if name not in lost}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"which lack .*layers\.2.*load a complete checkpoint"):
        opened(how, FILE)


def test_what_is_in_the_file_is_not_counted_as_memory(tmp_path):
    how = saved("vit", tmp_path)
    backbone = load(**how, left=(left := left_in_files(FILE, CUT, CPU)))
    stored = left.stored(backbone.model, backbone.family)
    found = FileBlocks(stored, torch.float64, CPU)
    blocks = blocks_of(backbone.model, backbone.family)
    found.install(blocks)
    assert found.elsewhere == sum(p.nbytes for block in blocks[CUT:] for p in block.parameters())


def test_a_run_goes_on_where_its_weights_are_elsewhere(tmp_path):
    """As after a move to a smaller machine: nothing that is learnt depends on it."""
    saved("vit", tmp_path / "model", torch.float32)
    settings = [*SHORT, f"model.name={tmp_path / 'model'}", "model.dtype=float64", "model.rank=2"]
    whole = sflam.train(sflam.load(None, [*settings, "learn.rounds=2"]), tmp_path / "whole")
    sflam.train(sflam.load(None, [*settings, "learn.rounds=1"]), tmp_path / "moved")
    config = tmp_path / "moved" / "config.toml"
    text = config.read_text()
    edited = text.replace('trunk_weights = "memory"', 'trunk_weights = "file"').replace(
        "rounds = 1\n", "rounds = 2\n"
    )
    assert edited.count("file") > text.count("file")
    config.write_text(edited)
    run = sflam.resume(tmp_path / "moved")
    list(run.rounds())
    assert run.finish().loss == whole.loss
