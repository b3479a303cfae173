"""The cost read off a config.json is what torch counts on the model itself: FLOP, weights, memory, bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sflam.cost.measure import measure, named_step, read_config
from sflam.cost.memory import activations, kept
from sflam.cost.training import Training
from sflam.errors import ModelError
from sflam.learn.precision import arithmetic
from sflam.model.adapters import attach, target_pattern
from sflam.model.architecture import READERS, read
from sflam.model.families import FAMILIES, blocks_of
from sflam.model.known import KNOWN
from sflam.model.lora import Rows
from sflam.model.segment import piece_of
from sflam.model.settings import ModelSettings
from sflam.model.split import Arrival, split
from tests.run.saved_bytes import saved_bytes
from tests.tiny import CLASSES, DEPTH, EVERY_KIND, MODELS, batch, is_image, tiny

ROWS, TOKENS, RANK = 3, 9, 2
LONG = 24
QUERY_VALUE = {"bert": "query value", "roberta": "query value", "distilbert": "q_lin v_lin", "gpt2": "c_attn"}


def folder_of(backbone, path):
    config = json.loads(backbone.model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(backbone.model).__name__]  # as saving the model writes it
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def training(kind, backbone, targets=(), **more):
    tokens = 0 if is_image(kind) else TOKENS
    plain = {"batch": ROWS, "rank": RANK, "classes": CLASSES, "tokens": tokens, "targets": targets}
    return Training(**plain | {"trained_head": bool(backbone.fresh)} | more)


def measured(kind, backbone, path, targets=(), **more):
    return measure(folder_of(backbone, path), training(kind, backbone, targets, **more))


def step_in(path, kind, backbone, **more):
    return named_step(folder_of(backbone, path), training(kind, backbone, **more))


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
    return [sum(item.get_total_flops() for item in each) for each in pairs], device


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
        # Of the memory, all but the activations: weights where the embedding is not them, and training.
        _, plain_device, _ = segments(kind, cut)
        held = [sum(tensor.numel() for tensor in each.parameters()) for each in (device, plain_device)]
        trained = costs.adapter_values[cut] - plain.adapter_values[cut]
        step = step_in(tmp_path, kind, tiny(kind))
        peaks = [activations(step, range(cut), head=head) for head in (True, False)]
        added = costs.device_memory[cut] - plain.device_memory[cut] - peaks[0] + peaks[1]
        assert 4 * (held[0] - held[1]) + 16 * trained == added and peaks[0] >= peaks[1]


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
    names = map(backbone.family.full, backbone.family.front + backbone.family.both)
    front = [part for name in names if (part := piece_of(backbone.model, name)) is not None]
    assert shape.embed_weights == sum(tensor.numel() for part in front for tensor in part.parameters())
    names = {name for name, _ in block.named_modules()}
    assert {linear.name for linear in shape.linears} <= names
    pattern = target_pattern(backbone, ())
    assert all(linear.name.replace(".", "\\.") in pattern for linear in shape.linears)
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
    assert megabytes == pytest.approx([32, 264, 671, 1756], rel=0.01)


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
    shape = read(KNOWN[name])
    assert (shape.embed_weights + shape.blocks * shape.block_weights) / 1e6 == pytest.approx(
        millions, rel=2e-3
    )


def test_the_bundled_model_is_measured():
    costs = measure("nano-vit", Training(batch=4))
    assert (costs.blocks, costs.tokens, costs.hidden) == (6, 17, 96)
    assert read_config("nano-vit")["model_type"] == "vit"


def kept_by(kind, *, attention="sdpa", cut=2, drop=0.0, dtype=torch.float32, frozen_a=False, **settings):
    """Return a backbone and what autograd holds after the device's forward: distinct storages, frozen weights apart."""
    backbone = tiny(kind, dtype=dtype, dropout=drop)
    backbone.model.set_attn_implementation(attention)
    model = attach(backbone, ModelSettings(rank=RANK, **settings)).train()
    device = split(backbone, model, [cut], frozen_a=frozen_a)[0].train()
    one = batch(kind, ROWS, LONG, full=True)
    weights = [*device.parameters(), *device.stack.tensors.values(), *backbone.model.parameters()]

    def run():
        with arithmetic(device):
            device(one["inputs"], one["lengths"], cut, Rows((0,), (ROWS,)))

    return backbone, saved_bytes(run, weights)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_what_a_step_keeps_is_what_autograd_holds(kind, dropout, attention, tmp_path):
    """A fused kernel that groups queries keeps each key once where no row is padded; the formula counts it anew."""
    backbone, held = kept_by(kind, attention=attention, drop=dropout)
    tokens = {} if is_image(kind) else {"tokens": LONG}
    step = step_in(tmp_path, kind, backbone, fused_attention=attention == "sdpa", **tokens)
    assert 0.97 <= kept(step, 0, 2) / held <= 1.12, kept(step, 0, 2) / held


@pytest.mark.parametrize(
    ("settings", "counted"),
    [
        ({"targets": ("q_proj", "v_proj")}, {"targets": ("q_proj", "v_proj")}),
        ({"dropout": 0.1}, {"lora_dropout": True}),
        ({"trainable": "full"}, {"full": True}),
        ({"frozen_a": True}, {"frozen_a": True}),
        ({"dtype": torch.bfloat16}, {"dtype": "bfloat16"}),
    ],
    ids=lambda one: "-".join(map(str, one)),
)
@pytest.mark.parametrize("kind", ["vit", "llama"])
def test_what_is_trained_decides_what_is_kept(kind, settings, counted, tmp_path):
    backbone, one = kept_by(kind, cut=1, **settings)
    two = kept_by(kind, cut=2, **settings)[1]
    tokens = {} if is_image(kind) else {"tokens": LONG}
    step = step_in(tmp_path, kind, backbone, **counted, **tokens)
    assert kept(step, 0, 1) == pytest.approx(two - one, rel=0.12), kept(step, 0, 1) / (two - one)


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
