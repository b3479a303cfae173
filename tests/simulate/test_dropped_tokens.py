"""Tokens that stay on a device are neither planned nor charged nor sent; its own blocks still run them."""

from __future__ import annotations

import numpy as np
import pytest

from sflam import config
from sflam.cost.measure import measure
from sflam.cost.training import Training
from sflam.errors import ModelError
from sflam.planner.cell import decide, measured
from sflam.sizes import HEADER_BYTES, payload_bits, sent_tokens
from tests.conftest import SHORT, assert_refused
from tests.reviews import write_reviews
from tests.simulate.builders import assert_resumes, ran

PLAIN = ("learn.rounds=2", "learn.evaluate_every=0", "learn.batch=4", "learn.local_steps=2", "model.cut=2")
PLAIN = (*PLAIN, "network.downlink_mbps=5", "network.server_kappa=1e-27", "plan.optimize=[]")
DROPPED = (*PLAIN, "privacy.drop_tokens=0.5")


@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_round_is_planned_as_it_is_charged_and_sent(small, tmp_path, labels):
    run = ran(small, tmp_path / "run", *DROPPED, f"model.labels={labels}")
    plain = ran(small, tmp_path / "plain", *PLAIN, f"model.labels={labels}")
    work, whole = (each.fleet.planner.workload for each in (run, plain))
    assert work.tokens == sent_tokens(whole.tokens, 0.5) < whole.tokens
    legs = 1 if labels == "server" else 2
    for mine, other in zip(run.records, plain.records, strict=True):
        charge = mine.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        payload = 0
        for place, _ in enumerate(mine.participants):
            tokens = mine.device_samples[place] * work.tokens
            bits = payload_bits(tokens, work.hidden, charge.bits_up[place]) * legs
            assert charge.payload_up[place] == bits
            payload += bits
        numbers = mine.samples * (labels == "server")
        heads = mine.device_steps * legs * HEADER_BYTES
        assert mine.bytes_up == payload // 8 + heads + 4 * numbers
        assert mine.bytes_up < other.bytes_up and mine.bytes_down < other.bytes_down
        assert charge.predicted_s < other.charge.predicted_s
        assert charge.predicted_j < other.charge.predicted_j


def test_texts_are_charged_by_what_goes_up_of_each(tmp_path):
    folder = tmp_path / "texts"
    write_reviews(folder)
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 31, 60)
    ids = draw.integers(4, 15, (60, 30))
    np.savez(folder / "texts.npz", input_ids=ids, lengths=lengths, label=np.arange(60) % 2)
    texts = (f"model.name={folder / 'bert'}", f"data.name={folder / 'texts.npz'}", "model.rank=1")
    run = ran((), tmp_path / "run", *SHORT, *texts, *PLAIN, "learn.local_steps=0", "privacy.drop_tokens=0.3")
    held = run.fleet.halves.examples.dataset.lengths
    for mine in run.records:
        charge = mine.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        for place, device in enumerate(mine.participants):
            part = run.fleet.halves.parts[device]
            assert mine.device_samples[place] == len(part)
            tokens = sum(sent_tokens(count, 0.3) for count in held[part].tolist())
            bits = payload_bits(tokens, run.fleet.planner.workload.hidden, charge.bits_up[place])
            assert charge.payload_up[place] == bits


@pytest.mark.parametrize("draw", ["step", "sample"])
def test_a_stopped_run_goes_on_as_if_it_had_not(small, tmp_path, draw):
    assert_resumes(small, tmp_path, (*DROPPED, "learn.state=keep", f"privacy.drop_draw={draw}"), stops=(1,))


def test_the_server_computes_what_it_gets_and_the_device_all():
    plain = Training(tokens=0)
    whole, some = measure("nano-vit", plain), measure("nano-vit", Training(drop_tokens=0.5))
    assert some.tokens == sent_tokens(whole.tokens, 0.5)
    assert some.device_forward == whole.device_forward and some.device_backward == whole.device_backward
    assert some.device_memory == whole.device_memory and some.adapter_values == whole.adapter_values
    text, short = (
        measure("bert-base-uncased", Training(tokens=100)),
        measure("bert-base-uncased", Training(tokens=51)),
    )
    half = measure("bert-base-uncased", Training(tokens=100, drop_tokens=0.5))
    assert half.tokens == sent_tokens(100, 0.5) == 51
    assert half.server_forward == short.server_forward and half.server_backward == short.server_backward
    assert half.device_forward == text.device_forward
    assert half.up_bits(8) == short.up_bits(8) and half.down_bits(3, 8) == short.down_bits(3, 8)


def test_plans_count_what_is_sent():
    asked = ("network.devices=3",)
    mine = decide(config.load(None, [*asked, "privacy.drop_tokens=0.75"]))
    other = decide(config.load(None, list(asked)))
    assert mine.plan.latency < other.plan.latency and mine.plan.energy < other.plan.energy


@pytest.mark.parametrize("model", ["gpt2", "meta-llama/Llama-3.2-1B", "microsoft/beit-base-patch16-224"])
def test_a_plan_for_a_model_that_needs_all_tokens_is_refused(model):
    job = config.load(None, [f"model.name={model}", "privacy.drop_tokens=0.5", "data.label="])
    with pytest.raises(ModelError, match=r"privacy\.drop_tokens does not go"):
        measured(job)


@pytest.mark.parametrize("share", ["-0.1", "1"])
def test_a_share_out_of_range_is_named(share, cli):
    assert_refused(cli("train", "--set", f"privacy.drop_tokens={share}"), "privacy.drop_tokens")
