"""Runs in an experiment tracker: MLflow or Weights & Biases, by callbacks of ``sflam.train``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.records.history import RoundRecord
from sflam.report.tensorboard import scalars
from sflam.run.callbacks import Callback
from sflam.run.finish import Result
from sflam.run.run import Run

LONGEST = 500
"""Letters of a setting's value that MLflow takes everywhere."""
AT_ONCE = 100
"""Settings that MLflow takes in one request."""
ADAPTER = "adapter"
"""Of a run's folder, what is worth keeping beside its numbers: what was trained, with its card."""


class MlflowCallback(Callback):
    """Logs a run to MLflow: settings, the scalars of every round, and at the end its result and what was trained.

    Args:
        experiment: name of the experiment; it is made where there is none.
        name: of the run; empty takes the run folder's.
        tracking_uri: where MLflow keeps runs; empty takes MLflow's own (``MLFLOW_TRACKING_URI``).

    Raises:
        ConfigError: MLflow is not installed.
    """

    def __init__(self, experiment: str = "sflam", name: str = "", tracking_uri: str = "") -> None:
        self._mlflow = _library("mlflow", "mlflow")
        self._experiment, self._name, self._uri = experiment, name, tracking_uri

    def began(self, run: Run) -> None:
        """Open a run of MLflow's, with the settings; rounds that an earlier process ran are logged again."""
        mlflow = self._mlflow
        if self._uri:
            mlflow.set_tracking_uri(self._uri)
        mlflow.set_experiment(self._experiment)
        self._folder = run.folder.path
        mlflow.start_run(run_name=self._name or self._folder.name)
        settings = [(key, str(value)[:LONGEST]) for key, value in settings_of(run.job).items()]
        for start in range(0, len(settings), AT_ONCE):
            mlflow.log_params(dict(settings[start : start + AT_ONCE]))
        for record in run.records:
            self.ended_round(record)

    def ended_round(self, record: RoundRecord) -> None:
        """Log the scalars of a round, counted from 1."""
        self._mlflow.log_metrics(scalars(record), step=record.round + 1)

    def finished(self, result: Result) -> None:
        """Log the result, keep what was trained with its card, and end MLflow's run."""
        self._mlflow.log_metrics(numbers_of(result))
        if (self._folder / ADAPTER).is_dir():
            self._mlflow.log_artifacts(str(self._folder / ADAPTER), artifact_path=ADAPTER)
        self._mlflow.end_run()

    def stopped(self, error: BaseException) -> None:
        """End MLflow's run as killed, where it was interrupted, or as failed."""
        if self._mlflow.active_run() is not None:
            self._mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


class WandbCallback(Callback):
    """Logs a run to Weights & Biases: settings, the scalars of every round, and at the end its result.

    Args:
        project: name of the project.
        name: of the run; empty takes the run folder's.
        options: further arguments of ``wandb.init``, ``mode="offline"`` say.

    Raises:
        ConfigError: wandb is not installed.
    """

    def __init__(self, project: str = "sflam", name: str = "", **options: Any) -> None:
        self._wandb = _library("wandb", "wandb")
        self._project, self._name, self._options = project, name, options
        self._run: Any = None

    def began(self, run: Run) -> None:
        """Open a run of W&B's, with the settings; rounds that an earlier process ran are logged again."""
        self._run = self._wandb.init(
            project=self._project,
            name=self._name or run.folder.path.name,
            config=settings_of(run.job),
            **self._options,
        )
        for record in run.records:
            self.ended_round(record)

    def ended_round(self, record: RoundRecord) -> None:
        """Log the scalars of a round, counted from 1."""
        self._run.log(scalars(record), step=record.round + 1)

    def finished(self, result: Result) -> None:
        """Write the result into the summary, and end W&B's run."""
        self._run.summary.update(numbers_of(result))
        self._run.finish()

    def stopped(self, error: BaseException) -> None:
        """End W&B's run as failed."""
        if self._run is not None:
            self._run.finish(exit_code=1)


def settings_of(job: Job) -> dict[str, Any]:
    """Return section.key -> value of every setting of a job."""
    found: dict[str, Any] = {}

    def walk(values: Mapping[str, Any], before: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                walk(value, f"{before}{key}.")
            else:
                found[before + key] = value

    walk(asdict(job), "")
    return found


def numbers_of(result: Result) -> dict[str, float]:
    """Return result/name -> value of every number of a result."""
    return {
        f"result/{key}": float(value)
        for key, value in vars(result).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed; pip install 'sflam[{extra}]'") from None
