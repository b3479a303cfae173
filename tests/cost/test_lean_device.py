"""The memory of a device without torch from a config.json, beside the plan of the graphs that a device really runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import transformers

from sflam import config
from sflam.cost.lean_device import RESIDENT, lean_of, lean_step
from sflam.cost.training import LeanDevice
from sflam.data.images import ImageSpec
from sflam.device.engines import Engines
from sflam.device.footprint import Footprint, body_bytes
from sflam.lean_memory import FEW, How, LeanStep
from sflam.learn.fit import built_step
from sflam.learn.settings import LearnSettings
from sflam.model.adapters import attach
from sflam.model.backbone import wrap
from sflam.model.device_graphs import bundle_of, device_half
from sflam.model.settings import ModelSettings
from sflam.planner.cell import decide, workload_of
from sflam.run.assemble import assemble

BATCH = 32
WITHIN = 0.15
CUT = "plan.optimize=['clock', 'cut']"
LEAN = "device.runtime=lean"


def vit(width, heads, inner, blocks=2, **options):
    shape = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner}
    made = transformers.ViTConfig(**shape, num_hidden_layers=blocks, num_labels=10, **options)
    return transformers.ViTForImageClassification(made)


def bert(width, heads, blocks=2, drop=0.1):
    shape = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    drops = {"hidden_dropout_prob": drop, "attention_probs_dropout_prob": drop}
    made = transformers.BertConfig(**shape, **drops, num_hidden_layers=blocks, vocab_size=1000)
    return transformers.BertForSequenceClassification(made)


def gpt2(width, heads):
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=width, n_head=heads, n_layer=2, vocab_size=1000)
    )


def llama(width, heads, groups, inner):
    shape = {"hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": groups}
    made = transformers.LlamaConfig(**shape, intermediate_size=inner, num_hidden_layers=2, vocab_size=1000)
    return transformers.LlamaForCausalLM(made)


CASES = {
    "ViT-B": (lambda: vit(768, 12, 3072), 0, {}, {}),
    "MiniLM": (lambda: bert(384, 12), 128, {}, {}),
}
MORE = {
    "ViT, narrow MLP": (lambda: vit(768, 12, 1536), 0, {}, {}),
    "ViT, wide MLP": (lambda: vit(512, 8, 3072), 0, {}, {}),
    "ViT-B, queries and values": (lambda: vit(768, 12, 3072), 0, {"targets": ("q_proj", "v_proj")}, {}),
    "ViT-B, dropout of adapters": (lambda: vit(768, 12, 3072), 0, {"dropout": 0.1}, {}),
    "ViT-B, rank 32": (lambda: vit(768, 12, 3072), 0, {"rank": 32}, {}),
    "ViT-B, frozen": (lambda: vit(768, 12, 3072), 0, {}, {"device_half": "frozen"}),
    "ViT, small images": (lambda: vit(64, 4, 128, image_size=32), 0, {}, {}),
    "BERT, no dropout": (lambda: bert(768, 12, drop=0.0), 256, {}, {}),
    "BERT, frozen": (lambda: bert(384, 12), 128, {}, {"device_half": "frozen"}),
    "GPT-2": (lambda: gpt2(768, 12), 128, {}, {}),
    "GPT-2, SGD": (lambda: gpt2(384, 6), 64, {}, {"optimizer": "sgd"}),
    "Llama, grouped queries": (lambda: llama(1024, 16, 4, 4096), 128, {}, {}),
    "Llama": (lambda: llama(512, 8, 8, 1536), 256, {}, {}),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MORE]


def both(name, labels="server"):
    """Return what a step is made of: of the graphs, and from the model's numbers."""
    make, tokens, model, learn = (CASES | MORE)[name]
    backbone, settings = wrap(make()), LearnSettings(batch=BATCH, **learn)
    adapted = attach(backbone, ModelSettings(**({"rank": 8} | model)))
    shape = backbone.model.config
    longest = tokens or (shape.image_size // shape.patch_size) ** 2 + 1
    half = device_half(backbone, adapted, 1, labels=labels, tokens=longest, learn=settings)
    mean = (0.5, 0.5, 0.5)
    counted = Footprint(
        engines=Engines(bundle_of(half)),
        learn=settings,
        spec=None if tokens else ImageSpec(size=shape.image_size, channels=3, mean=mean, std=mean),
        rows=BATCH,
        longest=longest,
        segment=0,
        body=body_bytes(BATCH * longest, shape.hidden_size, 8, "uniform"),
        moments=None,
        resident=RESIDENT,
    )
    step = built_step(backbone, longest, settings, home=labels == "device", lean=LeanDevice())
    return counted.step, lean_step(step, 1, LeanDevice())


def off(real: LeanStep, formula: LeanStep) -> dict[How, float]:
    """Return by how much the formula is off, of the whole process and of what training takes there."""
    found = {}
    for rows in (1,) if real.text else (1, 2, 8):
        for file in (True, False):
            how = How(rows=rows, file=file, inputs=not file, head=FEW if real.causal and file else 0)
            found[how] = formula.held(how).total / real.held(how).total - 1
            assert formula.held(how).trained == real.held(how).trained
    return found


@pytest.mark.parametrize("name", [*CASES, *SLOW])
@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_the_formula_is_the_plan_of_the_graphs(name, labels):
    found = off(*both(name, labels))
    assert max(map(abs, found.values())) < WITHIN, found


def job(*settings):
    return config.load(None, settings)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("learn.optimizer=sgd", "learn.momentum=0.9", "model.labels=device"),
        ("learn.device_half=frozen", "learn.batch=3"),
        ("learn.aggregation=freeze-a", "quant.scheme=identity", "learn.state=keep"),
        ("fleet.devices=2", "fleet.bits_up=[3, 16]", "learn.local=fedprox"),
    ],
    ids=" ".join,
)
def test_the_note_before_a_run_the_plan_and_the_report_say_one_number(settings):
    lean = job(*settings, LEAN)
    noted = assemble(lean).fit.device
    cut = lean.model.cut
    assert noted is not None and noted.total == workload_of(lean).device_memory[cut]
    assert noted.process and noted.total > 40e6
    torch = workload_of(replace(lean, device=job().device)).device_memory[cut]
    assert torch < 10e6 < noted.total
    assert "the process itself" in str(noted)


def test_what_a_lean_device_takes_grows_with_what_it_is_asked_for():
    def total(*settings):
        found = workload_of(job(LEAN, *settings)).device_memory
        assert list(found) == sorted(found)  # with the cut
        return found[2]

    plain = total()
    more = (
        "learn.batch=512",
        "learn.local=fedprox",
        "learn.state=keep",
        "model.rank=32",
    )
    assert all(total(setting) > plain for setting in more)
    floats = total("quant.bits_adapters=32")
    assert floats < plain  # which keeps what the round began from
    assert total("quant.scheme=identity") > floats
    assert total("learn.optimizer=sgd", "learn.state=keep") < total("learn.state=keep")
    assert total("model.dtype=float64") > plain
    assert total("plan.optimize=['bits']", "learn.batch=512") > total("learn.batch=512")


def test_a_whole_model_and_the_server_are_not_a_devices():
    torch, lean = workload_of(job()), workload_of(job(LEAN))
    assert torch.whole_memory == lean.whole_memory
    assert replace(lean, device_memory=torch.device_memory) == torch


def test_a_plan_keeps_cuts_whose_process_does_not_fit_off_a_device():
    fits = workload_of(job(LEAN)).device_memory
    room = f"network.memory_gb={(fits[2] + 1) / 1e9}"
    chosen = (CUT, "network.devices=3", "network.server_flops_per_cycle=10", room)
    assert set(decide(job(LEAN, *chosen)).plan.devices.cut) == {2}
    assert set(decide(job(*chosen)).plan.devices.cut) == {5}  # with torch, as deep as it goes
    assert lean_of(job()) is None and lean_of(job(LEAN)) == LeanDevice(bits=8, scheme="uniform", changes=True)
