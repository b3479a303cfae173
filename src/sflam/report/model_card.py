"""The model card beside an adapter: what it is, how it was trained, what it cost, how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

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


MOST_CLASSES = 24
"""More names of classes are cut short."""


def card(
    job: Job,
    records: Sequence[RoundRecord],
    *,
    task: str,
    load_base: str,
    data: str = "",
    column: str = "",
    classes: Sequence[str] = (),
    accuracy: float | None = None,
) -> str:
    """Return the text of the adapter folder's README.md.

    Args:
        job: of the finished run.
        records: its rounds.
        task: what the model does, in words.
        load_base: Python lines that import and build the base model under the name ``base``.
        data: what to call the dataset; as the job does by default.
        column: which the inputs came from, where they came from a table.
        classes: the names of the labels, in their order.
        accuracy: of the model that was kept; None takes the last one measured.
    """
    sums, quant, fleet, method = totals(records), job.quant, job.fleet, job.learn.method
    base, data = public_name(job.model.name), data or public_name(job.data.name)
    reached = sums.accuracy if accuracy is None else accuracy
    quantized = method == "sflam" and quant.scheme != "identity"
    averaging = "" if method in ("sl", "local", "central") else f", {job.learn.aggregation} aggregation"
    mixes = {"dirichlet": f", alpha {job.data.alpha:g}", "shards": f", {job.data.shards} a device"}
    named = [*classes[:MOST_CLASSES], *["..."] * (len(classes) > MOST_CLASSES)]
    rows = {
        "Base model": base,
        "Task": task,
        "Data": f"{data}, {fleet.devices} devices ({job.data.partition}{mixes.get(job.data.partition, '')})",
        "Input column": column,
        "Classes": f"{len(classes)}: {', '.join(named)}" if classes else "",
        "Method": method + averaging,
        "Bits at the cut": (
            f"{quant.bits_up} up, {quant.bits_down} down ({quant.scheme})" if quantized else "not quantized"
        ),
        "Blocks on the device": _cut(job),
        "LoRA rank": job.model.rank,
        "Rounds": sums.rounds,
        "Test accuracy": "not measured" if reached is None else percent(reached),
        "Sent over the network": (
            f"{human_bytes(sums.total_bytes)} (activations {human_bytes(sums.bytes_up)}, "
            f"gradients {human_bytes(sums.bytes_down)}, adapters {human_bytes(sums.adapter_bytes)})"
        ),
        "Seed": job.seed,
        "Configuration": digest(job),
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items() if value != "")
    return f"""---
base_model: {json.dumps(base, ensure_ascii=False)}
library_name: peft
tags:
- lora
- split-learning
- federated-learning
- sflam
---

# LoRA adapter of {_cell(base)}

Fine-tuned with sflam {__version__}: {_how(job)}

| | |
|---|---|
{table}

## Load it

```python
from peft import PeftModel
{load_base.strip()}
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


def public_name(name: str) -> str:
    """Return what to call a model or dataset elsewhere: a hub name as it is, of a path its last part."""
    path = Path(name).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else name


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
