"""The card says what the run was, and its markup survives hostile names."""

from __future__ import annotations

import json

from sflam.config import digest, load
from sflam.learn.settings import METHODS
from sflam.records.history import RoundRecord
from sflam.report.model_card import card, facts

BASE = """from transformers import AutoModelForImageClassification
base = AutoModelForImageClassification.from_pretrained("google/vit-base", num_labels=10)"""
RECORDS = [
    RoundRecord(round=0, loss=0.5, accuracy=0.5, bytes_up=10**6, bytes_down=2 * 10**6, adapter_bytes_up=1000),
    RoundRecord(round=1, loss=0.4, accuracy=0.9123, bytes_up=10**6, bytes_down=2 * 10**6),
]


def test_a_card_tells_the_run() -> None:
    job = load(None, ["model.name=google/vit-base", "quant.bits_up=4", "model.cut=2", "seed=7"])
    text = card(facts(job, RECORDS, task="image classification", load_base=BASE))
    for sentence in (
        'base_model: "google/vit-base"',
        "library_name: peft",
        "| Task | image classification |",
        "| Data | digits, 10 devices (dirichlet, alpha 0.5) |",
        "| Method | sflam, fedavg aggregation |",
        "| Bits at the cut | 4 up, 8 down (uniform) |",
        "| Blocks on the device | 2 |",
        "| Rounds | 2 |",
        "| Test accuracy | 91.2 % |",
        "6.00 MB (activations 2.00 MB, gradients 4.00 MB, adapters 1.00 kB)",
        "| Seed | 7 |",
        f"| Configuration | {digest(job)} |",
        BASE,
        "model = PeftModel.from_pretrained(base,",
    ):
        assert sentence in text, sentence


def test_what_was_not_measured_or_quantized_is_said() -> None:
    job = load(None, ["quant.scheme=identity", "fleet.devices=2", "fleet.cuts=[1, 3]", "data.partition=iid"])
    text = card(facts(job, [], task="digits", load_base="base = ..."))
    assert "| Test accuracy | not measured |" in text and "| Bits at the cut | not quantized |" in text
    assert "| Blocks on the device | per device: 1, 3 |" in text and "2 devices (iid)" in text


def test_the_card_of_each_method_is_true() -> None:
    split = ("sflam", "sfl-v1", "sfl-v2", "sl")
    for method in METHODS:
        text = card(facts(load(None, [f"learn.method={method}"]), RECORDS, task="t", load_base="base = ..."))
        assert ("8 up, 8 down" in text) == (method == "sflam")
        assert ("was cut between devices and a server" in text) == (method in split)
        assert ("the model was not cut" in text.lower()) == (method not in split)


def test_names_cannot_break_the_markup() -> None:
    name = 'a|b\n---\n"c": \\ d'
    job = load(None, [f"model.name={json.dumps(name)}"])
    text = card(facts(job, [], task="t", load_base="base = ..."))
    head = text.split("---\n")[1]
    assert head.splitlines()[0] == f"base_model: {json.dumps(name)}"
    assert '| Base model | a\\|b --- "c": \\\\ d |' in text
