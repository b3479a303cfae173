"""Loading a whole Hugging Face model by name, before anything is adapted or cut."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn

from sflam.errors import ModelError
from sflam.model.bitsandbytes import TrunkBits
from sflam.model.families import CAUSAL, Family, Task, blocks_of
from sflam.model.structure import completed, family_of
from sflam.model.weight_files import LeftInFiles
from sflam.seeds import derive

BUNDLED = {"nano-vit": "nano_vit"}
"""Models shipped inside the package: name -> folder beside this file."""

NOISY = ("transformers", "accelerate")
"""Loggers of libraries that report while they load."""

TORCH_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Backbone:
    """A whole model and what sflam knows of it.

    Attributes:
        model: the unmodified Hugging Face model.
        family: where its parts live.
        task: key of ``family.tasks``.
        name: the name it was asked for by.
        fresh: names of the linear layers the checkpoint did not hold; they are newly initialised and trained.
        elsewhere: bytes of its frozen weights that are not in the memory of this process.
    """

    model: Any
    family: Family
    task: str
    name: str
    fresh: tuple[str, ...] = ()
    elsewhere: int = 0

    @property
    def head(self) -> Task:
        """The task's head."""
        return self.family.tasks[self.task]

    @property
    def depth(self) -> int:
        """Number of blocks L."""
        return len(blocks_of(self.model, self.family))


def locate(name: str) -> str:
    """Return the folder of a bundled or local model, or ``name`` itself for a hub name."""
    if name in BUNDLED:
        return str(resources.files("sflam.model") / BUNDLED[name])
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    return name


def read_config(name: str) -> Any:
    """Return the Hugging Face config of a model; raises ModelError when there is none to read.

    Code that a model brings is never run, nor is the user asked whether to: what is read may come from a server.
    """
    with quiet():
        try:
            return transformers.AutoConfig.from_pretrained(locate(name), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"model {name!r} cannot be loaded: it is neither bundled ({', '.join(BUNDLED)}), nor a local folder "
                f"with a config.json, nor a reachable hub name; check model.name ({_first_line(error)})"
            ) from error


def load(
    name: str,
    *,
    task: str | None = None,
    classes: int = 0,
    dtype: str = "float32",
    seed: int = 0,
    trunk: TrunkBits | None = None,
    left: LeftInFiles | None = None,
) -> Backbone:
    """Load a model for a task; a head the checkpoint lacks is initialised from ``seed``.

    Args:
        name: ``nano-vit``, a local folder, or a hub name.
        task: a key of the family's tasks; None takes the one the config names, else the family's first.
        classes: number of labels of a classification head; 0 keeps the checkpoint's.
        dtype: ``float32``, ``float64`` or ``bfloat16``.
        seed: seed of the whole run.
        trunk: how the server's frozen weights are kept, if not as they are.
        left: blocks to load without weights; see :meth:`sflam.model.weight_files.LeftInFiles.stored`.

    Raises:
        ModelError: a model that cannot be split, unreadable files, or a task the family does not have.
    """
    config = read_config(name)
    family = family_of(config.model_type)
    task = task or _default_task(family, config)
    if task not in family.tasks:
        raise ModelError(
            f"model {name!r} ({family.name}) cannot do {task}; it can do {', '.join(sorted(family.tasks))}"
        )
    options: dict[str, Any] = {"num_labels": classes} if classes and task != CAUSAL else {}
    if trunk:
        options |= trunk.options(family, task, TORCH_DTYPES[dtype])
    reference = getattr(transformers, family.tasks[task].architecture)
    if left:
        options |= left.options(family, reference, config)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        try:
            model, info = reference.from_pretrained(
                locate(name),
                dtype=TORCH_DTYPES[dtype],
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            if trunk:
                raise trunk.refusal(error) from error
            raise ModelError(f"the weights of model {name!r} cannot be read: {_first_line(error)}") from error
    if trunk:
        trunk.settled(model)
    model.config.problem_type = None if task == CAUSAL else "single_label_classification"
    missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    fresh = _fresh_linears(model, name, missing)
    return Backbone(model, completed(family, model, task), task, name, fresh)


def wrap(model: Any, *, name: str = "", fresh: tuple[str, ...] = ()) -> Backbone:
    """Return the Backbone of a model built in memory."""
    family = family_of(model.config.model_type)
    for task, head in family.tasks.items():
        if head.architecture == type(model).__name__:
            return Backbone(model, completed(family, model, task), task, name or type(model).__name__, fresh)
    known = ", ".join(head.architecture for head in family.tasks.values())
    raise ModelError(
        f"model class {type(model).__name__} is not supported; the {family.name} family has {known}"
    )


def _default_task(family: Family, config: Any) -> str:
    architectures = getattr(config, "architectures", None) or []
    for task, head in family.tasks.items():
        if head.architecture in architectures:
            return task
    return next(iter(family.tasks))


def _fresh_linears(model: nn.Module, name: str, missing: set[str]) -> tuple[str, ...]:
    owners = sorted({key.rpartition(".")[0] for key in missing})
    for owner in owners:
        if not isinstance(model.get_submodule(owner), nn.Linear):
            raise ModelError(
                f"the checkpoint of model {name!r} lacks the weights of {owner}; only linear heads can be newly "
                "initialised: load a complete checkpoint"
            )
    return tuple(owners)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' own notices; sflam reports what matters of them (a new head) itself."""
    loggers, notices = [logging.getLogger(name) for name in NOISY], cast(Any, transformers.utils.logging)
    before, bar = [logger.level for logger in loggers], notices.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    notices.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if bar:
            notices.enable_progress_bar()
