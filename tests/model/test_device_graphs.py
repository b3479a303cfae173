"""The graphs of a device half against torch, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sflam.errors import GraphError
from sflam.graph.bundle import Bundle
from sflam.graph.reading import read_bundle
from sflam.graph.writing import write_bundle
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import attach
from sflam.model.device_graphs import DeviceHalf, bundle_of, device_half, shortened
from sflam.model.graph_check import differences, frozen_tensors
from sflam.model.settings import ModelSettings
from tests.tiny import EVERY_KIND, STRANGERS, is_image, tiny

IN_FLOAT32 = {"llama", "mistral", "qwen2", "qwen3", "gemma"}
"""Families that compute norms or angles in float32, whatever the model's type."""
PLAIN_IN_FLOAT32 = {"vit", "deit", "beit"}
"""Families whose plain attention takes its softmax in float32."""
SIZES = {True: (1, 2, 5), False: (1, 2, 7, 17)}


def made(
    kind: str,
    cut: int,
    *,
    dropout: float = 0.0,
    labels: str = "server",
    dtype: torch.dtype = torch.float64,
    rank: int = 0,
    tuned: int = 0,
    **learn: Any,
) -> tuple[Bundle, DeviceHalf, dict[str, torch.Tensor]]:
    """The bundle of a tiny model, what it is of, and the frozen tensors."""
    backbone = tiny(kind, dropout=dropout, dtype=dtype)
    model = attach(backbone, ModelSettings(rank=2, dropout=dropout, tuned=tuned))
    tokens = {"deit": 18}.get(kind, 17) if is_image(kind) else 32
    settings = LearnSettings(**learn)
    half = device_half(backbone, model, cut, labels=labels, tokens=tokens, learn=settings, rank=rank)
    return bundle_of(half), half, frozen_tensors(half, model)


def expect_torchs(
    bundle: Bundle, half: DeviceHalf, tensors: dict[str, torch.Tensor], limit: float, sizes: tuple[int, ...]
) -> set[str]:
    """Compare at sizes other than the traced one; return what was compared."""
    read = read_bundle(write_bundle(bundle))
    assert read == bundle
    found = dict(differences(read, half, tensors, sizes))
    assert max(found.values()) < limit, found
    return {name.partition(" for n")[0] for name in found}


def limit_of(kind: str, dropout: float) -> float:
    """1e-9, but where the model itself computes in float32: some families' norms, all plain attention of others."""
    family = kind.partition("-")[0]
    return 1e-5 if family in IN_FLOAT32 or (dropout and family in PLAIN_IN_FLOAT32) else 1e-9


def slow(kinds: tuple[str, ...]) -> list[Any]:
    """The kinds, all but the first marked as slow."""
    return [kinds[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in kinds[1:])]


@pytest.mark.parametrize("kind", slow(EVERY_KIND))
def test_the_graphs_are_torch_with_dropout_and_labels_at_home(kind: str) -> None:
    bundle, half, tensors = made(kind, 2, dropout=0.1, labels="device")
    compared = expect_torchs(bundle, half, tensors, limit_of(kind, 0.1), SIZES[is_image(kind)])
    assert {f"gradient of {name}" for name in half.segment.names(2)} < compared
    assert {"activations", "loss", "gradient at the head"} < compared
    assert list(bundle.trained) == half.segment.names(2)
    joint = bundle.kinds[-1].joint
    assert joint is not None and "dropout_mask" in {each.kind for each in joint.operations}


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", slow(tuple(STRANGERS)))
def test_the_graphs_of_a_model_split_by_its_structure(kind: str, labels: str) -> None:
    """Norms, or angles, of most of them are in float32; Gemma's small weights make its rounding large."""
    bundle, half, tensors = made(kind, 2, labels=labels)
    assert half.backbone.family.gates is not None
    limit = {"electra": 1e-9, "msn": 1e-9, "opt": 1e-9}.get(kind, 1e-4 if "gemma" in kind else 1e-6)
    compared = expect_torchs(bundle, half, tensors, limit, SIZES[is_image(kind)])
    assert {f"gradient of {name}" for name in half.segment.names(2)} < compared
    assert ("loss" in compared) == (labels == "device")
    others = [name for name in tensors if f"{half.backbone.family.path}.2." in name]
    assert not others, "what the other blocks hold is not sent"


@pytest.mark.parametrize("kind", slow(("bert", *(kind for kind in EVERY_KIND if kind != "bert"))))
def test_the_graphs_are_the_products_own_attention(kind: str) -> None:
    bundle, half, tensors = made(kind, 3)
    expect_torchs(bundle, half, tensors, limit_of(kind, 0.0), SIZES[is_image(kind)])
    assert half.backbone.model.config._attn_implementation != "eager"
    assert len(bundle.kinds) < 3, "blocks that differ in nothing but their tensors share their graphs"


@pytest.mark.parametrize("cut", [0, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "learn",
    [{"aggregation": "freeze-a"}, {"device_half": "frozen"}, {"cache": "device", "device_half": "frozen"}],
)
def test_halves_that_train_less(learn: dict[str, Any], cut: int) -> None:
    bundle, half, tensors = made("bert", cut, dropout=0.1, dtype=torch.float32, **learn)
    expect_torchs(bundle, half, tensors, 1e-5, (1, 9))
    assert list(bundle.trained) == ([] if "device_half" in learn else half.segment.names(cut))
    if cut and "aggregation" in learn:
        assert {name.rsplit(".", 2)[1] for name in bundle.trained} == {"lora_B"}


@pytest.mark.parametrize("tuned", [1, -1, pytest.param(-2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", slow(("vit", "bert", "llama-lm")))
def test_halves_with_adapters_in_some_blocks(kind: str, tuned: int) -> None:
    for cut in (3, 2):
        bundle, half, tensors = made(kind, cut, labels="device" if cut == 2 else "server", tuned=tuned)
        compared = expect_torchs(bundle, half, tensors, limit_of(kind, 0.0), SIZES[is_image(kind)][:2])
        assert list(bundle.trained) == half.segment.names(cut)
        assert {f"gradient of {name}" for name in half.segment.names(cut)} <= compared
        trains = [bundle.kinds[block.kind].joint is not None for block in bundle.blocks]
        assert trains == [index >= half.segment.tuned.start for index in range(cut)]


@pytest.mark.parametrize("kind", slow(("vit", "gpt2-lm")))
@pytest.mark.parametrize(
    "learn", [{"loss": "focal", "focal_gamma": 1.5}, {"loss": "label-smoothing", "smoothing": 0.2}]
)
def test_every_built_in_loss_runs_where_labels_are_at_home(kind: str, learn: dict[str, Any]) -> None:
    bundle, half, tensors = made(kind, 1, labels="device", **learn)
    compared = expect_torchs(bundle, half, tensors, 1e-9, (1, 3) if is_image(kind) else (2, 9))
    assert {"loss", "gradient at the head"} < compared


@pytest.mark.parametrize("kind", slow(("llama", "bert")))
@pytest.mark.parametrize("aggregation", ["fedavg", pytest.param("freeze-a", marks=pytest.mark.slow)])
def test_a_half_of_a_lower_rank_has_the_first_components(kind: str, aggregation: str) -> None:
    bundle, half, tensors = made(kind, 2, rank=1, aggregation=aggregation)
    expect_torchs(bundle, half, tensors, limit_of(kind, 0.0), (1, 9))
    factors = {**bundle.trained, **{name: tuple(t.shape) for name, t in tensors.items()}}
    ranks = {shape["lora_B" in name] for name, shape in factors.items() if "lora_" in name}
    assert ranks == {1} and any("lora_A" in name for name in factors)


def test_grouped_queries_share_their_keys_and_values() -> None:
    """Two heads of queries to one of keys and values, whose gradients are the sums over the heads that share them."""
    bundle, half, tensors = made("llama", 2)
    config = half.backbone.model.config
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    compared = expect_torchs(bundle, half, tensors, 1e-5, (1, 2, 17))
    shared = [name for name in bundle.trained if "k_proj" in name or "v_proj" in name]
    assert shared and {f"gradient of {name}" for name in shared} < compared
    heads = config.hidden_size // config.num_attention_heads
    shapes = {bundle.trained[name] for name in shared if "lora_B" in name}
    assert shapes == {(config.num_key_value_heads * heads, 2)}


def test_the_first_block_gives_no_gradient_and_costs_less() -> None:
    bundle, _, _ = made("vit", 2)
    first, second = (bundle.kinds[block.kind].joint for block in bundle.blocks)
    assert first is not None and second is not None
    assert "gradient_out" in second.outputs and "gradient_out" not in first.outputs
    assert len(first.operations) < len(second.operations)


def test_a_longer_bundle_cut_short_is_the_shorter_one() -> None:
    long, _, _ = made("gpt2", 3)
    short, _, _ = made("gpt2", 1)
    assert shortened(long, 1) == short
    assert shortened(long, 0).embed.graph.outputs == ("hidden",)


def test_a_precision_without_graphs_is_refused() -> None:
    with pytest.raises(GraphError, match="bfloat16"):
        made("vit", 1, dtype=torch.bfloat16)
