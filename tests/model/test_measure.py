"""The cost read off a config.json is what torch counts on the model itself: FLOP, weights, memory, bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sflam.errors import ModelError
from sflam.model.adapters import attach, target_pattern
from sflam.model.architecture import READERS, read
from sflam.model.families import FAMILIES, blocks_of
from sflam.model.known import KNOWN
from sflam.model.lora import Rows
from sflam.model.measure import Training, measure, read_config, total_weights
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from tests.tiny import CLASSES, DEPTH, EVERY_KIND, MODELS, batch, is_image, tiny

ROWS, TOKENS, RANK = 3, 9, 2
QUERY_VALUE = {"bert": "query value", "roberta": "query value", "distilbert": "q_lin v_lin", "gpt2": "c_attn"}


def folder_of(backbone, path):
    config = json.loads(backbone.model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(backbone.model).__name__]  # as saving the model writes it
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def measured(kind, backbone, path, targets=(), **more):
    fresh = bool(backbone.fresh)
    tokens = 0 if is_image(kind) else TOKENS
    return measure(
        folder_of(backbone, path),
        Training(
            batch=ROWS, tokens=tokens, rank=RANK, targets=targets, classes=CLASSES, trained_head=fresh, **more
        ),
    )


def segments(kind, cut, targets=(), attention="eager", dtype=torch.float64, frozen_a=False):
    backbone = tiny(kind, dtype=dtype)
    backbone.model.set_attn_implementation(attention)
    model = attach(backbone, ModelSettings(rank=RANK, targets=targets)).train()
    return backbone, *split(backbone, model, [cut], frozen_a=frozen_a)


def counted(kind, cut, targets, frozen_a=False):
    """Return what torch counts: device forward, backward, server forward, backward."""
    _, device, server = segments(kind, cut, targets, frozen_a=frozen_a)
    one, rows, counter = batch(kind, ROWS, TOKENS, full=True), Rows((0,), (ROWS,)), FlopCounterMode
    with counter(display=False) as device_forward:
        hidden = device(one["inputs"], one["lengths"], cut, rows)
    exchange = hidden.detach().requires_grad_(hidden.requires_grad)
    with counter(display=False) as server_forward:
        logits = server([Arrival(cut, exchange, rows)], one["lengths"])
    with counter(display=False) as server_backward:
        logits.sum().backward()
    with counter(display=False) as device_backward:
        if hidden.requires_grad:
            hidden.backward(exchange.grad)
    used = (device_forward, device_backward, server_forward, server_backward)
    return tuple(count.get_total_flops() for count in used)


@pytest.mark.parametrize("targets", ["all", "query and value"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_flops_are_those_torch_counts(kind, targets, tmp_path):
    names = ()
    if targets != "all":
        names = tuple(QUERY_VALUE.get(kind.partition("-")[0], "q_proj v_proj").split())
    costs = measured(kind, tiny(kind), tmp_path, names)
    for cut in (0, 1, DEPTH):
        found = counted(kind, cut, names)
        expected = (costs.device_forward, costs.device_backward, costs.server_forward, costs.server_backward)
        assert found == tuple(int(per_cut[cut]) for per_cut in expected), cut


def counted_at_home(kind, cut):
    """Return what torch counts with labels at home, in the order of ``counted``, and the device's segment."""
    backbone = tiny(kind, dtype=torch.float64)
    backbone.model.set_attn_implementation("eager")
    model = attach(backbone, ModelSettings(rank=RANK)).train()
    device, server = split(backbone, model, [cut], labels="device")
    one, rows = batch(kind, ROWS, TOKENS, full=True), Rows((0,), (ROWS,))
    forward, serving, head, losing, answering, backward = (FlopCounterMode(display=False) for _ in range(6))
    with forward:
        hidden = device(one["inputs"], one["lengths"], cut, rows)
    sent = hidden.detach().requires_grad_(hidden.requires_grad)
    with serving:
        last = server([Arrival(cut, sent, rows)], one["lengths"])
    back = last.detach().requires_grad_()
    with head:
        logits = device.finish(back, one["lengths"], rows)
    with losing:
        logits.sum().backward()
    with answering:
        if last.requires_grad:
            last.backward(back.grad)
    with backward:
        if hidden.requires_grad:
            hidden.backward(sent.grad)
    pairs = ((forward, head), (losing, backward), (serving,), (answering,))
    return [sum(one.get_total_flops() for one in each) for each in pairs], device


@pytest.mark.parametrize(
    "kind", [kind for kind in EVERY_KIND if kind in ("vit", "bert", "gpt2", "gpt2-lm", "llama-lm", "dinov2")]
)
def test_with_labels_at_home_the_head_is_the_device_s(kind, tmp_path):
    costs = measured(kind, tiny(kind), tmp_path, labels_home=True)
    plain = measured(kind, tiny(kind), tmp_path)
    for cut in (0, 1, DEPTH):
        found, device = counted_at_home(kind, cut)
        expected = (costs.device_forward, costs.device_backward, costs.server_forward, costs.server_backward)
        assert found == [int(per_cut[cut]) for per_cut in expected], cut
        assert costs.adapter_values[cut] == device.stack.size(device.names(cut))
        assert costs.up_bits(4) == 2 * plain.up_bits(4)
        assert costs.down_bits(cut, 4) == (1 + (cut > 0)) * plain.down_bits(1, 4)
        # Of the memory, all but the head's input and output: its weights where the embedding is not them, and training.
        _, plain_device, _ = segments(kind, cut)
        held = [sum(tensor.numel() for tensor in each.parameters()) for each in (device, plain_device)]
        trained = costs.adapter_values[cut] - plain.adapter_values[cut]
        tokens, words = costs.batch * costs.tokens, 0 if trained else tiny(kind).model.config.vocab_size
        kept = costs.device_memory[cut] - plain.device_memory[cut]
        kept -= 12 * tokens * (costs.hidden + words)
        assert 4 * (held[0] - held[1]) + 16 * trained == pytest.approx(kept, abs=4 * 4 * costs.hidden)


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm", "llama-lm"])
@pytest.mark.parametrize("targets", ["all", "query and value"])
def test_an_a_that_stays_gets_no_gradient(kind, targets, tmp_path):
    names = (
        () if targets == "all" else tuple(QUERY_VALUE.get(kind.partition("-")[0], "q_proj v_proj").split())
    )
    costs = measured(kind, tiny(kind), tmp_path, names, frozen_a=True)
    plain = measured(kind, tiny(kind), tmp_path, names)
    for cut in (0, 1, DEPTH):
        found = counted(kind, cut, names, frozen_a=True)
        expected = (costs.device_forward, costs.device_backward, costs.server_forward, costs.server_backward)
        assert found == tuple(int(per_cut[cut]) for per_cut in expected), cut
        device = segments(kind, cut, names, frozen_a=True)[1]
        assert costs.adapter_values[cut] == device.stack.size(device.names(cut))
        assert (costs.device_memory[cut] < plain.device_memory[cut]) == (cut > 0)


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm", "llama-lm"])
def test_flops_of_training_every_weight_are_those_torch_counts(kind, tmp_path):
    backbone = tiny(kind)
    costs = measured(kind, backbone, tmp_path, full=True)
    one = batch(kind, ROWS, TOKENS, full=True)
    backbone.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        backbone.model(**one["inputs"]).logits.sum().backward()
    every = (costs.device_forward, costs.device_backward, costs.server_forward, costs.server_backward)
    for cut in (0, 1, DEPTH):
        assert counter.get_total_flops() == sum(int(per_cut[cut]) for per_cut in every)


@pytest.mark.parametrize("targets", [("fc1",), ("k_proj",), ("o_proj",), ("q_proj", "k_proj", "fc2")])
def test_nothing_is_computed_below_the_lowest_adapter(targets, tmp_path):
    costs = measured("vit", tiny("vit"), tmp_path, targets)
    for cut in (0, 1, 2):
        found = counted("vit", cut, targets)
        assert found[1::2] == (costs.device_backward[cut], costs.server_backward[cut])


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_weights_layers_and_adapters_are_the_model_s(kind, tmp_path):
    backbone = tiny(kind)
    shape = read(json.loads(backbone.model.config.to_json_string(use_diff=False)))
    block = blocks_of(backbone.model, backbone.family)[0]
    assert shape.block_weights == sum(tensor.numel() for tensor in block.parameters())
    base = backbone.model.get_submodule(backbone.family.base)
    front = [base.get_submodule(name) for name in backbone.family.front if name != "drop"]
    assert shape.embed_weights == sum(tensor.numel() for part in front for tensor in part.parameters())
    names = {name for name, _ in block.named_modules()}
    assert {one.name for one in shape.linears} <= names
    pattern = target_pattern(backbone, ())
    assert all(one.name.replace(".", "\\.") in pattern for one in shape.linears)
    costs = measured(kind, backbone, tmp_path)
    model = attach(backbone, ModelSettings(rank=RANK))
    trained = sum(tensor.numel() for name, tensor in model.named_parameters() if "lora_" in name)
    assert costs.adapter_values[DEPTH] == trained and costs.blocks == DEPTH
    assert costs.tokens == (16 + shape.extra_tokens if is_image(kind) else TOKENS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("dinov2", {"use_swiglu_ffn": True}), ("beit", {"use_relative_position_bias": True})],
)
def test_options_of_a_family_are_read(kind, options, tmp_path, monkeypatch):
    architecture, configuration, plain, fresh = MODELS[kind]
    monkeypatch.setitem(MODELS, kind, (architecture, configuration, plain | options, fresh))
    test_weights_layers_and_adapters_are_the_model_s(kind, tmp_path)
    test_flops_are_those_torch_counts(kind, "all", tmp_path)


def test_every_family_is_read():
    assert READERS.keys() == FAMILIES.keys()


def test_vit_base_forward_is_the_published_number():
    """Embedding and twelve blocks, no LoRA, no head: 35.126 GFLOP, 17.563 GMAC an image."""
    costs = measure("google/vit-base-patch16-224", Training(batch=1, rank=1, targets=("q_proj", "v_proj")))
    lora = 12 * 2 * 197 * 2 * (768 + 768)
    assert (costs.device_forward[12] - lora) / 1e9 == pytest.approx(35.126, abs=1e-3)


def test_vit_base_reference_costs():
    """LoRA of rank 8 on queries and values: block, backward and traffic of the reference scenario, GFLOP and Mbit."""
    costs = measure("google/vit-base-patch16-224", Training(batch=16, targets=("q_proj", "v_proj")))
    forward = np.diff(costs.device_forward)[0] / 16e9
    backward = np.array(costs.device_backward) / 16e9
    assert forward == pytest.approx(2.908 + 0.0097, abs=1e-3)
    assert backward[:3] == pytest.approx([0, 2.285, 2.285 + 3.047], abs=1e-3)
    assert [costs.up_bits(bits) / 1e6 for bits in (4, 8, 16)] == pytest.approx(
        [9.784, 19.467, 38.833], abs=1e-3
    )
    assert costs.down_bits(0, 8) == 0 and costs.down_bits(1, 8) == costs.up_bits(8)
    megabytes = np.array(costs.device_memory)[[0, 1, 4, 12]] / 1e6
    assert megabytes == pytest.approx([22, 178, 645, 1890], rel=0.02)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("google/vit-base-patch16-224", 85.8),
        ("google/vit-large-patch16-224", 303.3),
        ("facebook/dinov2-base", 86.6),
        ("bert-base-uncased", 108.9),
        ("roberta-base", 124.1),
        ("distilbert-base-uncased", 66.4),
        ("gpt2", 124.4),
        ("meta-llama/Llama-3.2-1B", 1235.8),
        ("meta-llama/Llama-3.1-8B", 7504.9),
        ("mistralai/Mistral-7B-v0.1", 7110.7),
        ("Qwen/Qwen2-0.5B", 494.0),
        ("Qwen/Qwen3-0.6B", 596.0),
        ("google/gemma-2b", 2506.2),
    ],
)
def test_known_models_have_their_published_size(name, millions):
    """Weights of embedding and blocks; a language model's head is tied or not counted."""
    assert total_weights(read(KNOWN[name])) / 1e6 == pytest.approx(millions, rel=2e-3)


def test_the_bundled_model_is_measured():
    costs = measure("nano-vit", Training(batch=4))
    assert (costs.blocks, costs.tokens, costs.hidden) == (6, 17, 96)
    assert read_config("nano-vit")["model_type"] == "vit"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2-lm", "llama-lm"])
def test_memory_is_what_a_step_keeps(kind, attention, tmp_path):
    """What autograd holds after the device's forward: the distinct storages its hooks see, frozen weights apart.

    A fused kernel that groups queries keeps each key once; the formula counts it for every query.
    """
    tokens, cut = 32, 2
    backbone, device, _ = segments(kind, cut, attention=attention, dtype=torch.float32)
    one = batch(kind, ROWS, tokens, full=True)
    weights = [*device.parameters(), *device.stack.tensors.values()]
    known = {tensor.untyped_storage().data_ptr() for tensor in weights}
    held = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = (storage.nbytes(), storage)  # held on to, so that no address returns
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = device(one["inputs"], one["lengths"], cut, Rows((0,), (ROWS,)))
    at_the_cut = 2 * hidden.numel() * 4
    activations = sum(size for size, _ in held.values()) + at_the_cut
    training = {"tokens": tokens} if not is_image(kind) else {}
    shape = Training(batch=ROWS, rank=RANK, fused_attention=attention == "sdpa", classes=CLASSES, **training)
    costs = measure(folder_of(backbone, tmp_path), shape)
    frozen = sum(tensor.numel() for tensor in device.parameters() if not tensor.requires_grad)
    expected = costs.device_memory[cut] - 4 * frozen - 16 * costs.adapter_values[cut]
    most = 1.11 if (kind, attention) == ("llama-lm", "sdpa") else 1.04
    assert 0.99 <= expected / activations <= most, (expected, activations)


@pytest.mark.parametrize("kind", ["vit", "gpt2"])
def test_bits_are_those_of_real_bodies(kind, tmp_path):
    from sflam.codec.bodies import encode
    from sflam.codec.messages import GradientFrame, StepFrame
    from sflam.codec.quantizers import quantizer
    from sflam.sizes import HEADER_BYTES, step_body_bytes

    costs = measured(kind, tiny(kind), tmp_path)
    tokens = costs.batch * costs.tokens
    hidden = np.random.default_rng(0).normal(size=(tokens, costs.hidden)).astype(np.float32)
    for bits in (3, 8):
        packed = quantizer("uniform").encode(hidden, bits, 0)
        up = StepFrame(
            round=0, step=0, device=0, rows=costs.batch, activations=packed, lengths=None, labels=None
        )
        down = GradientFrame(round=0, step=0, device=0, loss=0.0, gradient=packed)
        assert 8 * (len(encode(up)) - HEADER_BYTES) == costs.up_bits(bits)
        assert 8 * (len(encode(down)) - HEADER_BYTES) == costs.down_bits(1, bits)
        assert len(encode(up)) == step_body_bytes(tokens, costs.hidden, bits, rows=costs.batch)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "t5"}, "unknown model family 't5'"),
        ({"model_type": "llama", "hidden_size": 8}, "num_attention_heads is None"),
        ({"model_type": "vit", "hidden_size": -1}, "hidden_size is -1"),
        ({"model_type": "vit", "hidden_size": True}, "hidden_size is True"),
        ([], "is no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_a_wrong_config_is_one_sentence(config, reason, tmp_path):
    (tmp_path / "config.json").write_text(config if config == "{" else json.dumps(config))
    with pytest.raises(ModelError, match=reason):
        measure(str(tmp_path))


def test_wrong_wishes_are_one_sentence():
    with pytest.raises(ModelError, match="did you mean 'google/vit-base-patch16-224'"):
        measure("google/vit-base-patch16-22")
    with pytest.raises(ModelError, match=r"unknown model\.targets entry 'q'"):
        measure("nano-vit", Training(targets=("q",)))
    with pytest.raises(ModelError, match="512 positions, asked for 600"):
        measure("bert-base-uncased", Training(tokens=600))
    with pytest.raises(ModelError, match="cannot do causal-lm"):
        measure("nano-vit", Training(task="causal-lm"))
    assert (
        measure("gpt2", Training(task="classification")).server_forward[12]
        < 1e7
        < (measure("gpt2").server_forward[12])
    )


def test_the_reference_workload_by_sizes_alone_is_the_same():
    from sflam.network.reference import ref_a_workload

    plain = ref_a_workload()
    training = Training(batch=16, targets=("q_proj", "v_proj"), classes=1000)
    read_off = measure("google/vit-base-patch16-224", training)
    for name in ("device_forward", "device_backward", "server_forward", "server_backward", "device_memory"):
        assert getattr(read_off, name) == pytest.approx(getattr(plain, name)), name
    assert read_off.adapter_values == plain.adapter_values
