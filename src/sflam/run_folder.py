"""What a run leaves on disk, and where.

config.toml    the resolved configuration
history.jsonl  a header (configuration, seed, versions), then one line a round
events/        TensorBoard events
curves.png     accuracy and loss against rounds and bytes
checkpoints/   the newest two states, enough to resume
adapter/       the trained adapter with its model card, for plain PeftModel.from_pretrained
model/         the merged model, with --merge or residual aggregation
result.json    what --json prints
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sflam.config import Job, load, to_toml
from sflam.durable import replace_file
from sflam.errors import RunError


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def history(self) -> Path:
        """The rounds."""
        return self.path / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The states to resume from."""
        return self.path / "checkpoints"

    @property
    def curves(self) -> Path:
        """The picture."""
        return self.path / "curves.png"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def merged(self) -> Path:
        """The merged model."""
        return self.path / "model"

    @property
    def result(self) -> Path:
        """The final numbers."""
        return self.path / "result.json"

    def create(self, job: Job) -> None:
        """Make the folder and write the configuration; raises RunError when it holds a run or cannot be written."""
        if self.config.exists() or self.history.exists():
            raise RunError(
                f"run folder {self.path} already holds a run; resume it with --resume {self.path}, or choose another "
                "folder with --out"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_file(self.config, to_toml(job).encode())
        except OSError as error:
            raise RunError(
                f"run folder {self.path} cannot be written ({error.strerror}); choose another with --out"
            ) from error

    def read_job(self) -> Job:
        """Return the job of an existing run; raises RunError when there is none."""
        if not self.config.is_file():
            raise RunError(f"{self.path} holds no run (no config.toml); give the folder a run was written to")
        return load(self.config)

    def write_result(self, values: Mapping[str, Any]) -> None:
        """Write the final numbers."""
        replace_file(self.result, (json.dumps(values, indent=2) + "\n").encode())

    def read_result(self) -> dict[str, Any]:
        """Return the final numbers; raises RunError when the run has not finished."""
        try:
            values: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path} holds no finished run ({self.result.name} is missing or damaged); finish it with "
                f"sflam train --resume {self.path}"
            ) from error
        return values


def default_folder(job: Job, parent: Path = Path("runs")) -> Path:
    """Return ``parent``/data-model-method-N with the smallest N not taken."""
    stem = f"{Path(job.data.name).stem}-{Path(job.model.name).name}-{job.learn.method}"
    taken = {name for name in os.listdir(parent)} if parent.is_dir() else set()
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return parent / f"{stem}-{number}"
