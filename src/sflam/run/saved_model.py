"""The model of a finished run, whole again, for whatever comes after training."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from sflam.config import Job
from sflam.errors import ConfigError, RunError
from sflam.model.adapters import State, load_state, reopen, state_of
from sflam.model.backbone import Backbone
from sflam.records.run_folder import RunFolder
from sflam.run.job_model import backbone_for


def saved_model(
    run: RunFolder, job: Job, kind: str, classes: int, device: int | None = None, data: str = ""
) -> tuple[Backbone, Any, tuple[str, ...]]:
    """Return the backbone of a finished run, the model that predicts, and notes of what was guessed on the way.

    Args:
        run: its folder.
        job: its job.
        kind: what the model reads, ``image`` or ``text``.
        classes: number of its classes; 0 for a language model.
        device: whose own model it is, of a run with ``learn.personal``; None takes the shared adapter.
        data: name of the data it is opened for, where there are some.

    Raises:
        SflamError: the run's files are missing, damaged or of another model, or it has no such device.
    """
    expect_device(job, device)
    merged = run.merged.is_dir() and not run.adapter.is_dir()
    backbone = backbone_for(job, kind, classes, str(run.merged) if merged else "", data)
    model: Any = backbone.model if merged else adapted(backbone, run)
    notes = () if job.learn.personal == "none" else (_own(model, run, device),)
    return backbone, model, notes


def expect_device(job: Job, device: int | None) -> None:
    """Raise ConfigError for a device that has no model of its own in the run of a job."""
    if device is None:
        return
    if job.learn.personal == "none":
        raise ConfigError(
            f'device {device} has no model of its own: the run has learn.personal = "none"; leave the device out'
        )
    if not 0 <= device < job.fleet.devices:
        raise ConfigError(f"device is {device}; it must be between 0 and {job.fleet.devices - 1}")


def _own(model: Any, run: RunFolder, device: int | None) -> str:
    """Put what a device keeps for itself into the model; return a note of whose model it is."""
    if device is None:
        return (
            "devices keep parts of their own (learn.personal), which have their start values here; name a device to "
            "predict with its model"
        )
    if not run.own_part(device).is_file():
        return f"device {device} never trained, so its own parts have their start values"
    shared = state_of(model)
    load_state(model, shared | own_parts(run, device, shared))
    return f"this is the model of device {device}"


def own_parts(run: RunFolder, device: int, shared: State) -> State:
    """Return what a device keeps for itself, by the names of the trained tensors ``shared``; empty where it has none.

    Raises:
        RunError: its file is damaged, or of another model.
    """
    path = run.own_part(device)
    if not path.is_file():
        return {}
    try:
        parts = load_file(path)
        strange = [n for n, t in parts.items() if n not in shared or shared[n].shape != t.shape]
        if strange:
            raise ValueError(f"{strange[0]} is not of this model")
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(
            f"{path} cannot be loaded ({error}); sflam train --resume {run.path} writes it again"
        ) from error
    return parts


def adapted(backbone: Backbone, run: RunFolder) -> Any:
    """Return the model with the run's adapter; raises RunError when that is missing, damaged or of another model."""
    try:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (run.adapter / name).is_file():  # peft would look for it on the hub
                raise FileNotFoundError(f"{name} is missing")
        return reopen(backbone, run.adapter)
    except Exception as error:  # peft and safetensors may raise anything on a damaged file
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise RunError(
            f"the adapter of {run.path} cannot be loaded ({reason}); sflam train --resume {run.path} writes it again"
        ) from error
