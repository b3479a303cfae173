"""What a model costs at every cut, from its config.json alone: FLOP, traffic, adapter weights, memory of the device."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from sflam.cost.flop import flop_of
from sflam.cost.memory import ADAPTER_BYTES, WEIGHT_BYTES, device_memory, whole_memory
from sflam.cost.training import Step, Training, step_of
from sflam.errors import ModelError, unknown
from sflam.files import from_json
from sflam.model.architecture import read
from sflam.model.known import KNOWN
from sflam.model.tuned import tuned_among
from sflam.sizes import MAX_BITS, MIN_BITS
from sflam.workload import Workload

BUNDLED = {"nano-vit": "nano_vit"}


def measure(
    model: str,
    training: Training | None = None,
    *,
    scheme: str = "uniform",
    bit_choices: Iterable[int] = range(MIN_BITS, MAX_BITS + 1),
) -> Workload:
    """Return the workload of a model by name.

    Args:
        model: ``nano-vit``, a local folder with a config.json, or a name in ``known.KNOWN``.
        training: how it is trained.
        scheme: the quantizer's name.
        bit_choices: the bit widths a plan may choose from.

    Raises:
        ModelError: no such model, an unsupported family, targets that name no layer, or too many tokens.
    """
    step = named_step(model, training or Training())
    return workload_of(step, name=model, scheme=scheme, bit_choices=tuple(bit_choices))


def named_step(model: str, training: Training) -> Step:
    """Return the training step of a model by name; raises ModelError as :func:`measure` does."""
    config = read_config(model)
    shape = read(config, classes=training.classes, task=training.task, where=f"model {model!r}")
    return step_of(shape, training, model)


def read_config(model: str) -> dict[str, Any]:
    """Return the parsed config.json of a bundled, local or well-known model; raises ModelError."""
    if model in KNOWN:
        return KNOWN[model]
    folder = Path(model).expanduser()
    if model in BUNDLED:
        folder = Path(str(resources.files("sflam.model") / BUNDLED[model]))
    elif not folder.is_dir():
        names = unknown("model", model, [*BUNDLED, *KNOWN])
        raise ModelError(f"{names}; or give a local folder with a config.json")
    try:
        config = from_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} cannot be read ({error}); give a model's folder"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} is no JSON object; give a model's folder")
    return config


def workload_of(
    step: Step,
    *,
    name: str,
    scheme: str = "uniform",
    bit_choices: tuple[int, ...] = tuple(range(MIN_BITS, MAX_BITS + 1)),
) -> Workload:
    """Return the workload of a training step at every cut; formulas (1.6) to (1.10)."""
    shape, training, flop = step.shape, step.training, flop_of(step)
    blocks, batch, home = shape.blocks, training.batch, training.labels_home
    served = flop_of(step.served) if training.drop_tokens else flop
    cuts, lowest = range(blocks + 1), flop.below
    adapted = [tuned_among(flop.tuned, 0, cut) for cut in cuts]
    values = training.rank * sum(
        linear.inputs * (not training.frozen_a) + linear.outputs for linear in step.adapted
    )
    frozen = training.frozen_half
    values *= not frozen
    head = home * sum(layer.weights for layer in shape.head if layer.fresh and training.trained_head)
    if training.full:  # every weight of the half, the embedding's too
        head = shape.embed_weights + home * (
            shape.tail_weights + sum(one.weights for one in shape.head if not one.tied)
        )
        values = shape.block_weights
    ahead, back = home * flop.head_forward, home * flop.head_backward
    return Workload(
        name=name,
        blocks=blocks,
        batch=batch,
        tokens=step.sent,
        hidden=shape.hidden,
        device_forward=tuple(
            float(batch * (flop.embed + flop.blocks_forward(0, cut) + ahead)) for cut in cuts
        ),
        device_backward=tuple(
            float(batch * ((lowest + flop.blocks_backward(0, cut)) * (not frozen) + back)) for cut in cuts
        ),
        server_forward=tuple(
            float(batch * (served.blocks_forward(cut, blocks) + flop.head_forward - ahead)) for cut in cuts
        ),
        server_backward=tuple(
            float(
                batch
                * (
                    served.blocks_backward(cut, blocks, frozen=cut * frozen)
                    + (flop.head_lowest if frozen and cut >= flop.tuned.stop else flop.head_backward)
                    - back
                )
            )
            for cut in cuts
        ),
        adapter_values=tuple(count * values + head for count in adapted),
        device_memory=tuple(float(device_memory(step, cut).total) for cut in cuts),
        whole_memory=float(whole_memory(step).total),
        exchanges=1 + home,
        down=training.full,
        frozen=frozen,
        lowest=flop.tuned.start,
        adapter_width=8 * max(ADAPTER_BYTES, WEIGHT_BYTES[training.dtype]),
        head_forward=float(batch * ahead),
        head_backward=float(batch * back),
        texts=not shape.tokens,
        labels_per_token=any(layer.every_token for layer in shape.head),
        bit_choices=bit_choices,
        scheme=scheme,
    )
