"""sflam: fine-tune large transformers on devices that could never hold them.

Public names are loaded when first used, so that ``import sflam`` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sflam.allocate.registry import register as register_allocator
    from sflam.codec.torch_quantizers import register as register_quantizer
    from sflam.config import Job, load
    from sflam.data.partition import register as register_partition
    from sflam.errors import SflamError
    from sflam.learn.fleet import FleetAround
    from sflam.learn.methods import register as register_method
    from sflam.learn.metrics import register as register_metric
    from sflam.model.backbone import locate as model_folder
    from sflam.model.families import register as register_family
    from sflam.model.losses import register as register_loss
    from sflam.records.history import RoundRecord
    from sflam.report.figures import draw_accuracy, draw_cost
    from sflam.report.together import read_runs
    from sflam.run.callbacks import Callback
    from sflam.run.finish import Result
    from sflam.run.generate import generate
    from sflam.run.planned_network import plan_network
    from sflam.run.predict import predict
    from sflam.run.replay import Recording, replay
    from sflam.run.start import resume, start, train
    from sflam.run.trackers import MlflowCallback, WandbCallback
    from sflam.simulate.policies import register as register_policy

__version__ = "0.1.0"

_HOMES = {
    "Callback": ("sflam.run.callbacks", "Callback"),
    "FleetAround": ("sflam.learn.fleet", "FleetAround"),
    "Job": ("sflam.config", "Job"),
    "MlflowCallback": ("sflam.run.trackers", "MlflowCallback"),
    "Recording": ("sflam.run.replay", "Recording"),
    "Result": ("sflam.run.finish", "Result"),
    "RoundRecord": ("sflam.records.history", "RoundRecord"),
    "SflamError": ("sflam.errors", "SflamError"),
    "WandbCallback": ("sflam.run.trackers", "WandbCallback"),
    "draw_accuracy": ("sflam.report.figures", "draw_accuracy"),
    "draw_cost": ("sflam.report.figures", "draw_cost"),
    "generate": ("sflam.run.generate", "generate"),
    "load": ("sflam.config", "load"),
    "model_folder": ("sflam.model.backbone", "locate"),
    "plan_network": ("sflam.run.planned_network", "plan_network"),
    "predict": ("sflam.run.predict", "predict"),
    "read_runs": ("sflam.report.together", "read_runs"),
    "register_allocator": ("sflam.allocate.registry", "register"),
    "register_family": ("sflam.model.families", "register"),
    "register_loss": ("sflam.model.losses", "register"),
    "register_metric": ("sflam.learn.metrics", "register"),
    "register_method": ("sflam.learn.methods", "register"),
    "register_partition": ("sflam.data.partition", "register"),
    "register_policy": ("sflam.simulate.policies", "register"),
    "register_quantizer": ("sflam.codec.torch_quantizers", "register"),
    "replay": ("sflam.run.replay", "replay"),
    "resume": ("sflam.run.start", "resume"),
    "start": ("sflam.run.start", "start"),
    "train": ("sflam.run.start", "train"),
}

__all__ = [
    "Callback",
    "FleetAround",
    "Job",
    "MlflowCallback",
    "Recording",
    "Result",
    "RoundRecord",
    "SflamError",
    "WandbCallback",
    "draw_accuracy",
    "draw_cost",
    "generate",
    "load",
    "model_folder",
    "plan_network",
    "predict",
    "read_runs",
    "register_allocator",
    "register_family",
    "register_loss",
    "register_method",
    "register_metric",
    "register_partition",
    "register_policy",
    "register_quantizer",
    "replay",
    "resume",
    "start",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sflam' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
