"""The model card beside an adapter: what it is, how it was trained, what it cost, how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypedDict

from sflam import __version__
from sflam.config import Job, digest
from sflam.records.history import RoundRecord
from sflam.report.totals import percent, totals
from sflam.units import human_bytes

SPLIT = (
    "the model was cut between devices and a server. Samples stayed on the devices; activations, labels, "
    "gradients and adapters crossed the network."
)
AT_HOME = (
    "the model was cut twice: first blocks, head and loss on the devices, the rest on a server. Samples and labels "
    "stayed on the devices; activations, gradients and adapters crossed the network."
)
RELAY = SPLIT + " Devices trained one after another and handed their half on."
WHOLE = (
    "every device trained the whole model on its own samples, which stayed there; what was trained crossed the network "
    "and was averaged. The model was not cut."
)
ALONE = (
    "every device trained the whole model for itself and nothing crossed the network. This is the model of the device "
    "with most samples; the accuracy is the mean over all devices' own models. The model was not cut."
)
CENTRAL = "the whole model was trained in one place on all the data, as a reference for split training."


UNCUT = {"fedlora": WHOLE, "fedavg": WHOLE, "local": ALONE, "central": CENTRAL}


class CardFacts(TypedDict):
    """What a card says.

    Attributes:
        base_model: name of the model the adapter belongs to.
        task: what the model does, in words.
        load_base: Python lines that import and build the base model under the name ``base``.
        data: the dataset and how the devices share it.
        method: how it was trained, with the aggregation.
        how: the sentence that says where the model and the samples were.
        bits: how the cut was quantized.
        cut: blocks on the device.
        rank: LoRA rank.
        rounds: rounds finished.
        accuracy: test accuracy, in words.
        traffic: bytes over the network, in words.
        seed: the run's seed.
        job: digest of the run's configuration.
        version: version of sflam.
    """

    base_model: str
    task: str
    load_base: str
    data: str
    method: str
    how: str
    bits: str
    cut: str
    rank: int
    rounds: int
    accuracy: str
    traffic: str
    seed: int
    job: str
    version: str


def facts(
    job: Job,
    records: Sequence[RoundRecord],
    *,
    task: str,
    load_base: str,
    accuracy: float | None = None,
) -> CardFacts:
    """Return the card's facts for a finished run; see ``CardFacts`` for ``task`` and ``load_base``.

    ``accuracy`` is that of the model that was kept; None takes the last one measured.
    """
    sums = totals(records)
    reached = sums.accuracy if accuracy is None else accuracy
    quant, fleet = job.quant, job.fleet
    quantized = job.learn.method == "sflam" and quant.scheme != "identity"
    averaging = (
        "" if job.learn.method in ("sl", "local", "central") else f", {job.learn.aggregation} aggregation"
    )
    spread = {
        "dirichlet": f", alpha {job.data.alpha:g}",
        "shards": f", {job.data.shards} a device",
    }.get(job.data.partition, "")
    return {
        "base_model": job.model.name,
        "task": task,
        "load_base": load_base,
        "data": f"{job.data.name}, {fleet.devices} devices ({job.data.partition}{spread})",
        "method": job.learn.method + averaging,
        "how": _how(job),
        "bits": (
            f"{quant.bits_up} up, {quant.bits_down} down ({quant.scheme})" if quantized else "not quantized"
        ),
        "cut": _cut(job),
        "rank": job.model.rank,
        "rounds": sums.rounds,
        "accuracy": "not measured" if reached is None else percent(reached),
        "traffic": (
            f"{human_bytes(sums.total_bytes)} (activations {human_bytes(sums.bytes_up)}, "
            f"gradients {human_bytes(sums.bytes_down)}, adapters {human_bytes(sums.adapter_bytes)})"
        ),
        "seed": job.seed,
        "job": digest(job),
        "version": __version__,
    }


def card(said: CardFacts) -> str:
    """Return the text of the adapter folder's README.md."""
    rows = [
        ("Base model", said["base_model"]),
        ("Task", said["task"]),
        ("Data", said["data"]),
        ("Method", said["method"]),
        ("Bits at the cut", said["bits"]),
        ("Blocks on the device", said["cut"]),
        ("LoRA rank", said["rank"]),
        ("Rounds", said["rounds"]),
        ("Test accuracy", said["accuracy"]),
        ("Sent over the network", said["traffic"]),
        ("Seed", said["seed"]),
        ("Configuration", said["job"]),
    ]
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
    return f"""---
base_model: {json.dumps(said["base_model"], ensure_ascii=False)}
library_name: peft
tags:
- lora
- split-learning
- federated-learning
- sflam
---

# LoRA adapter of {_cell(said["base_model"])}

Fine-tuned with sflam {said["version"]}: {said["how"]}

| | |
|---|---|
{table}

## Load it

```python
from peft import PeftModel
{said["load_base"].strip()}
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


def _how(job: Job) -> str:
    said = UNCUT | {"sl": RELAY}
    return said.get(job.learn.method, AT_HOME if job.model.labels == "device" else SPLIT)


def _cut(job: Job) -> str:
    if job.learn.method in UNCUT:
        return "all: the model was not cut"
    return "per device: " + ", ".join(map(str, job.fleet.cuts)) if job.fleet.cuts else str(job.model.cut)


def _cell(value: object) -> str:
    """Return a value that cannot break a Markdown table."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")
