"""Labels at home: the U-shape is the same mathematics, and the server sees neither labels nor logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam import sizes
from sflam.codec.messages import StepFrame, TokenFrame
from sflam.codec.settings import QuantSettings
from sflam.learn import u_shape
from sflam.model.adapters import state_of
from sflam.model.settings import ModelSettings
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import EVERY_KIND, WIDTH, is_lm

# The head's gradient is clipped with the side it is on, so the two placements are compared unclipped.
UNCLIPPED = replace(LEARN, clip=0.0)


def trained(kind, labels, learn, sizes, cuts, rounds=2, **options):
    backbone, model, examples = adapted(kind, **options)
    fleet = local_fleet(backbone, model, examples, parts_of(sizes), cuts=cuts, learn=learn, labels=labels)
    return run(fleet, state_of(model), rounds)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_labels_at_home_train_the_same_adapters(kind):
    """Every family; ragged batches and lengths, cuts 0 to L in one round, devices that finish early."""
    runs = [trained(kind, labels, UNCLIPPED, [11, 3, 8, 1], [1, 0, 3, 2]) for labels in ("server", "device")]
    assert_equal_states(runs[1][1], runs[0][1], 1e-5 if is_lm(kind) else 1e-9)
    assert [record.loss for record in runs[1][0]] == pytest.approx([record.loss for record in runs[0][0]])


@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_labels_at_home_at_every_cut(cut, state):
    learn = replace(UNCLIPPED, state=state)
    runs = [trained("bert", labels, learn, [9, 4], [cut, cut]) for labels in ("server", "device")]
    assert_equal_states(runs[1][1], runs[0][1])


@pytest.mark.parametrize("update", ["sequential", "batched"])
def test_one_shared_trunk_with_the_head_at_home(update):
    """SFL-V2 on one device is SFL-V1; with several, a head at home is each device's own until the average."""
    learn = replace(UNCLIPPED, method="sfl-v2", server_update=update)
    runs = [trained("vit", labels, learn, [9], [1]) for labels in ("server", "device")]
    assert_equal_states(runs[1][1], runs[0][1])
    learn = replace(learn, local_steps=8)
    records, state = trained("vit", "device", learn, [3, 2, 2], [1, 2, 0], rounds=5)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert min(record.loss for record in records) < records[0].loss


def test_dropout_draws_each_device_its_own_masks():
    options = {"dropout": 0.3, "model_settings": ModelSettings(rank=2, dropout=0.2)}
    alone = trained("bert", "device", UNCLIPPED, [6], [2], rounds=1, **options)[1]
    again = trained("bert", "device", UNCLIPPED, [6], [2], rounds=1, **options)[1]
    without = trained("bert", "device", UNCLIPPED, [6], [2], rounds=1)[1]
    assert_equal_states(alone, again, 1e-12)
    with pytest.raises(AssertionError):
        assert_equal_states(alone, without, 1e-3)


def test_the_server_sees_no_labels_no_logits_and_no_head(monkeypatch):
    """Every body that reaches or leaves the server is d wide, without labels; its segment has no head."""
    backbone, model, examples = adapted("vit")
    fleet = local_fleet(backbone, model, examples, parts_of([4, 2]), labels="device", quant=QuantSettings())
    seen = []
    honest = u_shape.encode

    def spy(message):
        seen.append(message)
        return honest(message)

    monkeypatch.setattr(u_shape, "encode", spy)
    for name in ("answer_message", "answer_messages"):  # the frame that carries a loss is never written
        monkeypatch.setattr(u_shape.Exchange, name, None)
    run(fleet, state_of(model), 1)
    assert sorted({type(message) for message in seen}, key=str) == [StepFrame, TokenFrame]
    assert all(message.labels is None for message in seen if isinstance(message, StepFrame))
    assert {(m.activations if isinstance(m, StepFrame) else m.tokens).dim for m in seen} == {WIDTH}
    assert not any("classifier" in name for name, _ in fleet.servers.trunks[0].segment.named_modules())
    assert not any("classifier" in name for name in fleet.servers.trunks[0].segment.stack.slots)


def test_bytes_are_those_of_two_exchanges():
    backbone, model, examples = adapted("vit")
    quant = QuantSettings(bits_up=4, bits_down=6)
    fleet = local_fleet(backbone, model, examples, parts_of([4]), labels="device", quant=quant)
    (record,), _ = run(fleet, state_of(model), 1)
    tokens = 4 * 17
    up = sizes.step_body_bytes(tokens, WIDTH, 4, rows=4) + sizes.token_body_bytes(tokens, WIDTH, 4)
    assert record.bytes_up == up
    assert record.bytes_down == 2 * sizes.token_body_bytes(tokens, WIDTH, 6)
    assert record.code_bytes == 2 * sum(sizes.codes_bytes(tokens, WIDTH, bits) for bits in (4, 6))
    held = fleet.devices.segment.names(1)
    assert any("classifier" in name for name in held)
    assert record.adapter_bytes_up == sizes.adapter_body_bytes(fleet.devices.segment.stack.size(held), 8)


def test_a_quantized_head_still_learns():
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    learn = replace(LEARN, local_steps=12, clip=1.0)
    fleet = local_fleet(
        backbone,
        model,
        examples,
        parts_of([2, 2]),
        learn=learn,
        labels="device",
        quant=QuantSettings(bits_up=6),
    )
    losses = [record.loss for record in run(fleet, state_of(model), 5)[0]]
    assert min(losses) < 0.5 * losses[0]
