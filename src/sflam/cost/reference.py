"""What the models of the reference networks cost: a ViT-B/16 in the cell, a transformer in the square."""

from __future__ import annotations

from dataclasses import replace

from sflam.cost.measure import measure, workload_of
from sflam.cost.training import Training, step_of
from sflam.model.architecture import read
from sflam.model.known import KNOWN
from sflam.network.reference import TOKENS, Edge
from sflam.workload import Workload

VIT = "google/vit-base-patch16-224"


def ref_a_workload(batch: int = 16, *, outputs: int = 1000) -> Workload:
    """Return ViT-B/16 at 224 pixels with LoRA of rank 8 on queries and values."""
    training = Training(batch=batch, targets=("q_proj", "v_proj"), classes=outputs)
    return replace(measure(VIT, training), name="vit-b16")


def ref_b_workload(tokens: int, layers: int = 12, *, full_training: bool = False, tuned: int = 0) -> Workload:
    """Return a transformer of width 768 with LoRA of rank 8 on queries and values, batches of 8; or without LoRA."""
    shape = replace(read(KNOWN["bert-base-uncased"]), blocks=layers, embed_weights=0, head=())
    training = Training(batch=8, tokens=tokens, targets=("query", "value"), full=full_training, tuned=tuned)
    name = f"transformer-{layers}x768"
    return workload_of(step_of(shape, training, name), name=name)


def workloads_of(
    edge: Edge, layers: int = 12, *, full_training: bool = False, tuned: int = 0
) -> tuple[Workload, ...]:
    """Return what a mini-batch costs each user of the reference square; users of one length share one."""
    kinds = {
        length: ref_b_workload(length, layers, full_training=full_training, tuned=tuned) for length in TOKENS
    }
    return tuple(kinds[length] for length in edge.tokens.tolist())
