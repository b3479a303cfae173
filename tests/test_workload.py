"""The transformer's workload against the published numbers of ViT-B/16 and against counting by hand."""

from __future__ import annotations

import pytest

from sflam.network.reference import ref_a_workload
from sflam.workload import transformer_workload

GIGA = 1e9


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


def test_vit_base_has_its_published_traffic_and_memory() -> None:
    work = ref_a_workload()
    assert [work.up_bits(bits) for bits in (4, 8, 16)] == [9_783_808, 19_466_752, 38_832_640]
    assert work.down_bits(0, 8) == 0 and work.down_bits(1, 8) == work.up_bits(8)
    assert work.adapter_bits(3) == 32 * 3 * 2 * 2 * 8 * 768
    published = {0: 22e6, 1: 178e6, 4: 645e6, 12: 1.89e9}
    assert all(work.device_memory[cut] == pytest.approx(peak, rel=0.02) for cut, peak in published.items())


@pytest.mark.parametrize("down", [False, True])
def test_device_and_server_together_do_the_whole_work(down: bool) -> None:
    work = transformer_workload(
        "t", hidden=8, tokens=5, blocks=3, mlp=32, heads=2, batch=2, outputs=4, down=down
    )
    for forward in (work.device_forward, work.server_forward):
        assert len(forward) == 4
    whole = [a + b for a, b in zip(work.device_forward, work.server_forward, strict=True)]
    back = [a + b for a, b in zip(work.device_backward, work.server_backward, strict=True)]
    assert whole == pytest.approx([whole[0]] * 4)
    assert back == pytest.approx([back[0]] * 4)
    assert (work.down_bits(0, 8) > 0) == down


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
    work = transformer_workload(
        "t", hidden=8, tokens=5, blocks=2, mlp=32, heads=2, batch=1, rank=3, sites=sites
    )
    inner = work.device_backward[2] - work.device_backward[1]
    assert inner - work.device_backward[1] == pytest.approx(5 * saved)


def test_shared_keys_and_a_gate_count() -> None:
    plain = transformer_workload("t", hidden=8, tokens=5, blocks=1, mlp=16, heads=4, batch=1, sites=())
    other = transformer_workload(
        "t", hidden=8, tokens=5, blocks=1, mlp=16, heads=4, batch=1, sites=(), value_width=2, gated=True
    )
    change = 2 * 5 * (8 * 16 - 2 * 8 * 6)  # a gate more, narrower keys and values
    assert other.device_forward[1] - plain.device_forward[1] == change
