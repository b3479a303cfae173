"""What a run leaves on disk, and where.

config.toml    the resolved configuration
plugins/       the files of job.plugins, as they were when the run began
partition.json which device holds which rows of the data, and how many of each class
history.jsonl  a header (configuration, seed, versions), then one line a round
history.columns  long lists of its lines, as of many devices: binary columns, round after round
events/        TensorBoard events
curves.png     accuracy and loss against rounds and bytes
partition.png  the samples of every class on each device
checkpoints/   the newest two states, enough to resume
momenta/       what optimisers remember of devices that are away (learn.state = "keep" with fleet.selected), to resume
adapter/       the trained adapter with its model card, for plain PeftModel.from_pretrained; not with trainable = "full"
personal/      what each device keeps for itself (learn.personal), one small file for each that has trained
model/         the merged model, with --merge, residual aggregation or trainable = "full"
result.json    what --json prints
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sflam.config import Job, load, to_toml
from sflam.errors import RunError
from sflam.files import from_json, replace_file, sync_files, sync_folder, writing
from sflam.locks import Hold, hold
from sflam.plugins import contents, portable


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def plugins(self) -> Path:
        """The copies of plug-in files, from which the run is resumed."""
        return self.path / "plugins"

    @property
    def history(self) -> Path:
        """The rounds."""
        return self.path / "history.jsonl"

    @property
    def partition(self) -> Path:
        """Which device holds which rows."""
        return self.path / "partition.json"

    @property
    def partition_picture(self) -> Path:
        """The samples of every class on each device."""
        return self.path / "partition.png"

    @property
    def checkpoints(self) -> Path:
        """The states to resume from."""
        return self.path / "checkpoints"

    @property
    def momenta(self) -> Path:
        """What optimisers remember of devices that are away; checkpoints lead to it."""
        return self.path / "momenta"

    @property
    def curves(self) -> Path:
        """The picture."""
        return self.path / "curves.png"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def personal(self) -> Path:
        """What devices keep for themselves."""
        return self.path / "personal"

    def own_part(self, device: int) -> Path:
        """What one device keeps for itself."""
        return self.personal / f"device-{device}.safetensors"

    @property
    def merged(self) -> Path:
        """The merged model."""
        return self.path / "model"

    @property
    def result(self) -> Path:
        """The final numbers."""
        return self.path / "result.json"

    def expect_free(self) -> None:
        """Raise RunError when the folder holds a run."""
        # os.path, unlike Path, returns False for a name that cannot exist; making the folder then reports why.
        if os.path.exists(self.config) or os.path.exists(self.history):
            raise RunError(
                f"run folder {self.path} already holds a run; resume it with --resume {self.path}, or choose another "
                "folder with --out"
            )

    def create(self, job: Job) -> None:
        """Make the folder and write the configuration; raises RunError when it holds a run or cannot be written."""
        self.expect_free()
        with writing(f"run folder {self.path}", "choose another with --out"):
            self.path.mkdir(parents=True, exist_ok=True)
            files = contents(job.plugins)
            if files:
                self.plugins.mkdir(exist_ok=True)
            for name, content in files.items():
                replace_file(self.plugins / name, content)
            # Last: a folder with a configuration is a run.
            self._write_config(job)

    def read_job(self) -> Job:
        """Return the job of an existing run; raises RunError when there is none."""
        if not os.path.isfile(self.config):
            raise RunError(f"{self.path} holds no run (no config.toml); give the folder a run was written to")
        return load(self.config)

    def move(self, job: Job) -> None:
        """Write where the data and the model of a run that goes on lie now; raises RunError where it cannot be."""
        if job != self.read_job():
            with writing(self.config, "choose another folder"):
                self._write_config(job)

    def _write_config(self, job: Job) -> None:
        """Write the configuration, its plug-ins being those of the folder."""
        files, listed = contents(job.plugins), tuple(map(portable, job.plugins))
        kept = tuple(f"plugins/{name}" if name.partition("#")[0] in files else name for name in listed)
        replace_file(self.config, to_toml(job, plugins=kept).encode())

    def hold(self) -> Hold:
        """Keep other processes from writing to the run; raises RunError where one does."""
        return hold(
            self.path, f"another process is writing to the run {self.path}; wait until it ends, or stop it"
        )

    def forget_result(self) -> None:
        """Remove the final numbers before what they vouch for is written again; may raise OSError."""
        self.result.unlink(missing_ok=True)
        sync_folder(self.path)

    def write_result(self, values: Mapping[str, Any]) -> None:
        """Write the final numbers, last of all: they vouch that everything else is whole and on disk."""
        for folder in (self.adapter, self.personal, self.merged):
            if folder.is_dir():
                sync_files(folder)
        replace_file(self.result, (json.dumps(values, indent=2) + "\n").encode())

    def read_result(self) -> dict[str, Any]:
        """Return the final numbers; raises RunError when the run has not finished."""
        try:
            values: Any = from_json(self.result.read_text(encoding="utf-8"))
            if not (isinstance(values, dict) and isinstance(values.get("classes"), list)):
                raise ValueError("no classes")
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path} holds no finished run ({self.result.name} is missing or damaged); finish it with "
                f"sflam train --resume {self.path}"
            ) from error
        return values


def default_folder(job: Job, parent: Path = Path("runs")) -> Path:
    """Make and return ``parent``/data-model-method-N, the smallest N not taken; runs started at once get one each."""
    return numbered_folder(
        f"{Path(job.data.name).stem}-{Path(job.model.name).name}-{job.learn.method}", parent
    )


def numbered_folder(stem: str, parent: Path = Path("runs")) -> Path:
    """Make and return ``parent``/stem-N, the smallest N not taken; processes that ask at once get one each."""
    for number in itertools.count(1):
        path = parent / f"{stem}-{number}"
        with writing(f"run folder {path}", "choose another with --out"), suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("unreachable")
