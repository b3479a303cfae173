"""LoRA through peft: what is adapted, what is trained, what is saved."""

from __future__ import annotations

import peft
import pytest
import torch

from sflam.errors import ModelError
from sflam.model.adapters import attach, load_state, reopen, save, state_of
from sflam.model.backbone import wrap
from sflam.model.settings import ModelSettings
from sflam.model.split import split
from tests.tiny import DEPTH, EVERY_KIND, MODELS, batch, largest_difference, tiny, whole_arguments

FEWER = {"gpt2": 4, "gpt2-lm": 4}
MORE = dict.fromkeys(("llama", "llama-lm", "mistral", "qwen2-lm", "qwen3-lm", "gemma-lm"), 7)
LINEAR = dict.fromkeys(EVERY_KIND, 6) | FEWER | MORE


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_linear_layer_of_the_blocks_is_adapted_and_a_new_head_trained(kind):
    names = state_of(attach(tiny(kind), ModelSettings(rank=2))).keys()
    assert sum(name.endswith("lora_A.weight") for name in names) == LINEAR[kind] * DEPTH
    trained = {
        name.rpartition(".")[0].removeprefix("base_model.model.") for name in names if "lora" not in name
    }
    assert trained == set(MODELS[kind][3])


def test_targets_choose_layers_by_their_last_names():
    names = state_of(attach(tiny("vit"), ModelSettings(targets=("q_proj", "mlp.fc1")))).keys()
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in names if "lora" in name}
    assert layers == {"q_proj", "fc1"}


def test_a_pooler_outside_the_blocks_is_not_adapted():
    """BERT's pooler ends in ``dense``, as layers of its blocks do."""
    names = state_of(attach(tiny("bert"), ModelSettings(targets=("dense",)))).keys()
    assert not any("pooler" in name for name in names)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_trained_tensors_are_those_that_peft_would_save_also_where_they_were_replaced(kind):
    model = attach(tiny(kind), ModelSettings(rank=2))
    first = state_of(model)
    for module in model.modules():
        if "default" in getattr(module, "lora_A", ()):
            module.lora_A["default"].weight = torch.nn.Parameter(torch.randn(2, module.in_features))
            module.lora_B["default"] = torch.nn.Linear(2, module.out_features, bias=False)
    found = state_of(model)
    wanted = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    assert list(found) == list(wanted) == list(first)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert any(not torch.equal(found[name], first[name]) for name in wanted)


def test_an_unknown_target_names_the_known_ones():
    with pytest.raises(ModelError, match=r"unknown model.targets entry 'q_prj', did you mean 'q_proj'"):
        attach(tiny("vit"), ModelSettings(targets=("q_prj",)))


def test_the_start_is_seeded():
    states = [state_of(attach(tiny("vit"), ModelSettings(rank=2), seed=seed)) for seed in (1, 1, 2)]
    name = next(name for name in states[0] if "lora_A" in name)
    assert torch.equal(states[0][name], states[1][name]) and not torch.equal(states[0][name], states[2][name])
    assert not any(tensor.any() for name, tensor in states[0].items() if "lora_B" in name)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_plain_peft_loads_what_was_saved(kind, tmp_path):
    backbone = tiny(kind)
    model = attach(backbone, ModelSettings(rank=2))
    torch.manual_seed(0)
    load_state(model, {name: torch.randn_like(t) * 0.1 for name, t in state_of(model).items()})
    save(model, tmp_path)
    with torch.no_grad():
        expected = model.eval()(**whole_arguments(batch(kind))).logits
    plain = peft.PeftModel.from_pretrained(tiny(kind).model, str(tmp_path)).eval()
    again = reopen(tiny(kind), tmp_path).eval()
    with torch.no_grad():
        assert largest_difference(plain(**whole_arguments(batch(kind))).logits, expected) < 1e-9
        assert largest_difference(again(**whole_arguments(batch(kind))).logits, expected) < 1e-9


def test_an_adapter_that_does_not_fit_is_one_clear_line(tmp_path):
    save(attach(tiny("vit"), ModelSettings(rank=2)), tmp_path / "vit")
    with pytest.raises(ModelError, match="cannot be loaded"):
        reopen(tiny("bert"), tmp_path / "vit")
    with pytest.raises(ModelError, match="cannot be loaded"):
        reopen(tiny("vit"), tmp_path / "nowhere")


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_bfloat16_keeps_what_is_trained_in_float32(kind):
    backbone = tiny(kind, dtype=torch.bfloat16)
    model = attach(backbone, ModelSettings(rank=2))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    device, server = split(backbone, model, [1, 2])
    for segment in (device, server):
        assert segment.stack.values.dtype == torch.float32
        assert {p.dtype for p in segment.parameters()} == {torch.bfloat16}


def test_a_head_that_is_not_new_is_trained_when_asked():
    backbone = tiny("bert")
    known = wrap(backbone.model, name="bert")  # a checkpoint that brought its head
    assert not any("classifier" in name for name in state_of(attach(known, ModelSettings(rank=2))))
    again = wrap(tiny("bert").model, name="bert")
    names = state_of(attach(again, ModelSettings(rank=2, trainable="lora+head")))
    assert {name.removeprefix("base_model.model.") for name in names if "lora" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_a_head_tied_to_the_embedding_is_not_trained_on_the_server():
    with pytest.raises(ModelError, match="lm_head of model 'gpt2-lm' shares its weight with the embedding"):
        attach(tiny("gpt2-lm"), ModelSettings(trainable="lora+head"))
    names = state_of(attach(tiny("qwen3-lm"), ModelSettings(rank=2, trainable="lora+head")))
    assert any("lm_head" in name for name in names), "an untied one may be"


def test_training_goes_on_from_a_saved_adapter(tmp_path):
    model = attach(tiny("vit"), ModelSettings(rank=2))
    torch.manual_seed(0)
    load_state(model, {name: torch.randn_like(t) for name, t in state_of(model).items()})
    save(model, tmp_path)
    again = state_of(attach(tiny("vit"), ModelSettings(rank=2, adapter=str(tmp_path))))
    assert all(torch.equal(tensor, again[name]) for name, tensor in state_of(model).items())
    with pytest.raises(ModelError, match="does not fit this job at"):
        attach(tiny("vit"), ModelSettings(rank=3, adapter=str(tmp_path)))
    with pytest.raises(ModelError, match="holds no adapter that can be read"):
        attach(tiny("vit"), ModelSettings(adapter=str(tmp_path / "nowhere")))
