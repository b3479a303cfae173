"""Loading the model of a job: by its name, for the task of its data, onto the device that runs it."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.errors import ConfigError, DataError, ModelError, SflamError, unknown
from sflam.learn.world.world import ALONE, World
from sflam.model.backbone import BUNDLED, Backbone, load, read_config
from sflam.model.bitsandbytes import TrunkBits
from sflam.model.families import CAUSAL, IMAGE, SEQUENCE
from sflam.model.structure import family_of
from sflam.model.weight_files import LeftInFiles
from sflam.run.trunk_weights import install, left_in_files


def backbone_of(job: Job, dataset: Dataset, classes: int, folder: str = "", world: World = ALONE) -> Backbone:
    """Load the job's model, or the one merged into ``folder``, with a head of ``classes`` outputs for ``dataset``."""
    return backbone_for(job, dataset.kind, classes, folder, dataset.name, world)


def backbone_for(
    job: Job, kind: str, classes: int, folder: str = "", data: str = "", world: World = ALONE
) -> Backbone:
    """Load a job's model for data of a ``kind``, whose name errors say, as :func:`backbone_of` does for a dataset."""
    name = folder or job.model.name
    # By the job, not the dataset: what a classifier predicts may lack labels too.
    texts = SEQUENCE if job.data.label else CAUSAL
    task = IMAGE if kind == "image" else texts
    device, cut = torch_device(job.learn.device), max(placement.cut for placement in job.placements)
    trunk = TrunkBits(job.model.trunk_bits, cut, device) if job.model.trunk_bits else None
    left = left_in_files(job.model, cut, device)
    backbone = open_model(
        name,
        task=task,
        classes=classes,
        dtype=job.model.dtype,
        seed=job.seed,
        data=data,
        trunk=trunk,
        left=left,
    )
    if left is not None:
        return install(backbone, left, job.model, world)
    if trunk is None:
        backbone.model.to(device)
    return backbone


def open_model(
    name: str,
    *,
    task: str | None = None,
    classes: int = 0,
    dtype: str = "float32",
    seed: int = 0,
    data: str = "",
    trunk: TrunkBits | None = None,
    left: LeftInFiles | None = None,
) -> Backbone:
    """Load a model as :func:`sflam.model.backbone.load` does.

    Args:
        data: name of the data the task was chosen for, where there is one.

    Raises:
        DataError: the model cannot do the task of the data.
        ModelError: anything else, a damaged file included.
    """
    if (
        "/" not in name
        and name not in BUNDLED
        and difflib.get_close_matches(name, BUNDLED)
        and not Path(name).is_dir()
    ):
        raise ModelError(f"{unknown('model', name, BUNDLED)}; give that, a local folder, or a hub name")
    try:
        family = family_of(read_config(name).model_type)
        if data and task == CAUSAL and CAUSAL not in family.tasks:
            raise DataError(
                f"data {data!r} is read without labels (data.label is empty), which is for language models, but model "
                f"{name!r} ({family.name}) can only do {', '.join(sorted(family.tasks))}; name the labels, or choose a "
                "decoder as model.name"
            )
        if data and task not in family.tasks:
            raise DataError(
                f"data {data!r} is for {task}, but model {name!r} ({family.name}) can only do "
                f"{', '.join(sorted(family.tasks))}; choose other data, or another model.name"
            )
        return load(name, task=task, classes=classes, dtype=dtype, seed=seed, trunk=trunk, left=left)
    except SflamError:
        raise
    except Exception as error:  # a damaged folder makes transformers and its parsers raise whatever they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"model {name!r} cannot be loaded, its files are damaged or do not belong together ({reason}); fetch or "
            "save it again"
        ) from error


def torch_device(name: str) -> torch.device:
    """Return the torch device of ``learn.device``; raises ConfigError when ``cuda`` is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError('learn.device is "cuda" but torch finds no CUDA device; use "auto" or "cpu"')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
