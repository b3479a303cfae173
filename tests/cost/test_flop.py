"""The transformer's workload against the published numbers of ViT-B/16 and against counting by hand."""

from __future__ import annotations

import pytest

from sflam.cost.measure import workload_of
from sflam.cost.reference import ref_a_workload
from sflam.cost.training import Training, step_of
from sflam.model.architecture import Architecture, HeadLayer, Linear

GIGA = 1e9


def transformer(
    sites=(),
    *,
    blocks=1,
    mlp=32,
    heads=2,
    batch=1,
    rank=8,
    value_width=8,
    gated=False,
    outputs=0,
    fresh=False,
    **more,
):
    """Return the workload of a transformer of width 8 on five tokens, given by its sizes alone."""
    ins = [Linear(name, 8, mlp) for name in ("up", "gate")[: 1 + gated]]
    shape = Architecture(
        family="by hand",
        blocks=blocks,
        hidden=8,
        heads=heads,
        width=8,
        projections=(Linear("q", 8, 8), Linear("k", 8, value_width), Linear("v", 8, value_width)),
        output=Linear("o", 8, 8),
        mlp_in=tuple(ins),
        mlp_out=Linear("down", mlp, 8),
        activation_copies=1,
        block_weights=0,
        embed_weights=0,
        head=(HeadLayer(8, outputs, fresh=fresh),) if outputs else (),
    )
    training = Training(batch=batch, tokens=5, rank=rank, targets=sites, **more)
    return workload_of(step_of(shape, training, "t"), name="t")


def test_vit_base_has_its_published_work() -> None:
    work = ref_a_workload()
    lora = 4 * 197 * 2 * 8 * 768
    layer = (work.device_forward[1] - work.device_forward[0]) / 16
    backward = (work.device_backward[2] - work.device_backward[1]) / 16
    assert work.device_forward[12] / 16 / GIGA - 12 * lora / GIGA == pytest.approx(35.126, abs=1e-3)
    assert (layer - lora) / GIGA == pytest.approx(2.908, abs=1e-3)
    assert backward / GIGA == pytest.approx(3.047, abs=1e-3)
    assert backward / layer == pytest.approx(1.044, abs=1e-3)
    assert work.device_backward[1] / 16 / GIGA == pytest.approx(2.285, abs=1e-3)
    assert work.device_backward[0] == 0


def test_vit_base_has_its_published_traffic() -> None:
    work = ref_a_workload()
    assert [work.up_bits(bits) for bits in (4, 8, 16)] == [9_783_808, 19_466_752, 38_832_640]
    assert work.down_bits(0, 8) == 0 and work.down_bits(1, 8) == work.up_bits(8)
    assert work.adapter_bits(3) == 32 * 3 * 2 * 2 * 8 * 768


def test_device_and_server_together_do_the_whole_work() -> None:
    work = transformer(blocks=3, batch=2, outputs=4)
    for forward in (work.device_forward, work.server_forward):
        assert len(forward) == 4
    whole = [a + b for a, b in zip(work.device_forward, work.server_forward, strict=True)]
    back = [a + b for a, b in zip(work.device_backward, work.server_backward, strict=True)]
    assert whole == pytest.approx([whole[0]] * 4)
    assert back == pytest.approx([back[0]] * 4)
    assert work.down_bits(0, 8) == 0 < work.down_bits(1, 8)


@pytest.mark.parametrize(
    ("sites", "saved"),
    [
        (("q", "v"), 6 * 64 + 2 * 5 * 8 + 2 * 2 * 3 * 8),  # W_q, W_k, W_v; dK; two A
        (("q", "k", "v"), 6 * 64 + 3 * 2 * 3 * 8),
        (("v",), 6 * 64 + 3 * 2 * 5 * 8 + 2 * 3 * 8),  # dQ, dK, and of the attention weights
        (("down",), 8 * 64 + 4 * 2 * 5 * 8 + 2 * 2 * 8 * 32 + 2 * 3 * 32),  # all but the adapter itself
    ],
)
def test_the_lowest_block_computes_only_what_its_adapters_need(sites: tuple[str, ...], saved: float) -> None:
    work = transformer(sites, blocks=2, rank=3)
    inner = work.device_backward[2] - work.device_backward[1]
    assert inner - work.device_backward[1] == pytest.approx(5 * saved)


def test_shared_keys_and_a_gate_count() -> None:
    plain = transformer(mlp=16, heads=4, rank=0)
    other = transformer(mlp=16, heads=4, rank=0, value_width=2, gated=True)
    change = 2 * 5 * (8 * 16 - 2 * 8 * 6)  # a gate more, narrower keys and values
    assert other.device_forward[1] - plain.device_forward[1] == change


def test_a_frozen_half_is_run_forward_and_the_server_backs_up_to_the_cut() -> None:
    """The lowest block that is trained is the server's first, at every cut; adapters and gradients stay there."""
    plain, frozen = (
        transformer(blocks=3, batch=2, outputs=4, fresh=True, frozen_half=own) for own in (False, True)
    )
    assert frozen.device_forward == plain.device_forward and frozen.server_forward == plain.server_forward
    assert frozen.device_backward == (0.0,) * 4 and frozen.adapter_values == (0,) * 4
    assert [frozen.down_bits(cut, 8) for cut in range(4)] == [0] * 4
    lowest, block = plain.device_backward[1], plain.device_backward[2] - plain.device_backward[1]
    head = 2 * 2 * 8 * 4  # one product, two samples
    for cut in range(3):
        assert frozen.server_backward[cut] == lowest + (2 - cut) * block + 2 * head
    assert frozen.server_backward[3] == head  # its weight alone
    assert frozen.server_backward[0] == plain.server_backward[0]
    assert (frozen.up_bits(4), frozen.down_bits(0, 4)) == (plain.up_bits(4), plain.down_bits(0, 4))


def test_with_labels_at_home_a_frozen_half_has_one_answer_less() -> None:
    plain, frozen = (
        transformer(blocks=3, outputs=4, fresh=True, labels_home=True, frozen_half=own)
        for own in (False, True)
    )
    for cut in range(1, 4):
        assert plain.down_bits(cut, 8) == 2 * frozen.down_bits(cut, 8) == plain.up_bits(8)
        assert frozen.device_backward[cut] == plain.device_backward[0] == 2 * 2 * 8 * 4
        assert frozen.adapter_values[cut] == 8 * 4 + 4
