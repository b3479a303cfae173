"""The card says what the run was, and its markup survives hostile names."""

from __future__ import annotations

import json
from pathlib import Path

from sflam.config import digest, load
from sflam.learn.methods import METHODS
from sflam.records.history import RoundRecord, record_from_dict, record_to_dict
from sflam.records.secured import SecureRound
from sflam.report.model_card import MOST_CLASSES, card
from sflam.report.protection import secured_line

BASE = """from transformers import AutoModelForImageClassification
base = AutoModelForImageClassification.from_pretrained("google/vit-base", num_labels=10)"""
RECORDS = [
    RoundRecord(round=0, loss=0.5, accuracy=0.5, bytes_up=10**6, bytes_down=2 * 10**6, adapter_bytes_up=1000),
    RoundRecord(round=1, loss=0.4, accuracy=0.9123, bytes_up=10**6, bytes_down=2 * 10**6),
]


def test_a_card_tells_the_run() -> None:
    job = load(None, ["model.name=google/vit-base", "quant.bits_up=4", "model.cut=2", "seed=7"])
    text = card(job, RECORDS, task="image classification", load_base=BASE)
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


def test_what_was_not_measured_or_quantized_is_reported() -> None:
    job = load(None, ["quant.scheme=identity", "fleet.devices=2", "fleet.cuts=[1, 3]", "data.partition=iid"])
    text = card(job, [], task="digits", load_base="base = ...")
    assert "| Test accuracy | not measured |" in text and "| Bits at the cut | not quantized |" in text
    assert "| Blocks on the device | per device: 1, 3 |" in text and "2 devices (iid)" in text


def test_the_card_of_each_method_is_true() -> None:
    split = ("sflam", "sflam-mixed", "sfl-v1", "sfl-v2", "sl")
    for method, found in METHODS.items():
        job = load(None, [f"learn.method={method}"])
        cut, quantized = found.split, found.quantized
        text = card(job, RECORDS, task="t", load_base="base = ...", cut=cut, quantized=quantized)
        assert ("8 up, 8 down" in text) == (method in ("sflam", "sflam-mixed"))
        assert ("was cut between devices and a server" in text) == (method in split)
        assert ("the model was not cut" in text.lower()) == (method not in split)


def test_what_acts_on_devices_and_on_the_server_is_named() -> None:
    job = load(None, ["learn.method=fedadam", "learn.local=fedprox"])
    text = card(job, RECORDS, task="t", load_base="base = ...", cut=False, quantized=False)
    assert "| Method | fedadam, fedavg aggregation, fedprox on devices, adam on the server |" in text


def test_names_cannot_break_the_markup() -> None:
    name = 'a|b\n---\n"c": \\ d'
    job = load(None, [f"model.name={json.dumps(name)}"])
    text = card(job, [], task="t", load_base="base = ...")
    head = text.split("---\n")[1]
    assert head.splitlines()[0] == f"base_model: {json.dumps(name)}"
    assert '| Base model | a\\|b --- "c": \\\\ d |' in text


def test_classes_and_the_column_of_the_inputs_are_named() -> None:
    job = load(None, [])
    text = card(
        job, [], task="t", load_base="base = ...", data="reviews", column="text", classes=("bad", "good")
    )
    assert "| Input column | text |" in text and "| Classes | 2: bad, good |" in text
    assert "| Data | reviews, 10 devices" in text
    many = card(job, [], task="t", load_base="base = ...", classes=list(map(str, range(1000))))
    assert f", {MOST_CLASSES - 1}, ... |" in many and "| Classes | 1000: 0, 1," in many
    plain = card(job, [], task="t", load_base="base = ...")
    assert "Classes" not in plain and "Input column" not in plain


def test_a_folder_of_this_machine_is_not_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    text = card(
        load(None, [f"model.name={tmp_path / 'my-model'}", f"data.name={tmp_path / 'mine.csv'}"]),
        [],
        task="t",
        load_base="base = ...",
    )
    assert text.startswith('---\nbase_model: "my-model"\n') and str(tmp_path) not in text
    assert "| Base model | my-model |" in text and "| Data | mine.csv, " in text


def test_sums_under_masks_are_named_with_what_they_cover() -> None:
    job = load(None, ["privacy.secure_aggregation=true", "quant.adapters_scale=common"])
    rounds = [
        RoundRecord(
            round=number,
            loss=0.5,
            secured=SecureRound(devices=tuple(range(count)), bits=24, neighbours=count - 1, threshold=3),
        )
        for number, count in enumerate((5, 4))
    ]
    line = (
        "what devices trained before the cut was summed under masks of 24 bits in 2 rounds: the server learned the "
        "sums over 4 to 5 devices, and no device's part; what it trains itself it knows"
    )
    assert f"| Protection | {line} |" in card(job, rounds, task="t", load_base="base = ...")
    assert secured_line(rounds) == line and secured_line(RECORDS) == ""
    assert record_from_dict(record_to_dict(rounds[0])) == rounds[0]
    assert "secured" not in record_to_dict(RECORDS[0])
