"""Train once, charge many: the recorded rounds of a simulated run over another network, or with another plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sflam import config
from sflam.config import Job, changes, plain
from sflam.errors import ConfigError, RunError
from sflam.files import writing
from sflam.learn.aggregate import trained_numbers
from sflam.learn.personal import travelling
from sflam.network.network import Network
from sflam.network.presence import uncertain
from sflam.network.settings import NetworkSettings
from sflam.records import history
from sflam.records.history import History, RoundRecord
from sflam.records.run_folder import RunFolder
from sflam.report.charts import figure
from sflam.report.charts.curves import draw_curves
from sflam.report.terminal.loop_lines import planning_share
from sflam.report.totals import totals
from sflam.run.assemble import Assembly, assemble
from sflam.run.compatibility import check
from sflam.run.contents import at_places_of, content_digest
from sflam.simulate.draws import Draws
from sflam.simulate.fleet import SimulatedFleet
from sflam.simulate.recorded import Bodies, RecordedFleet, charged_anew
from sflam.simulate.setup import simulated

SECTIONS = ("network", "plan")
"""Of a job, what does not change what is learnt, unless a plan says so."""
TRAINED = ("network.calibrate", "plan.measure_every")
"""Keys of those sections that want training itself."""


def learning(job: Job) -> str:
    """Return a digest of what of a job decides what is learnt, where its plans decide neither bits nor cuts."""
    plain_job = config.load(None)
    return content_digest(replace(job, network=plain_job.network, plan=plain_job.plan))


class Recording:
    """A run that was simulated to its end, to be charged anew.

    Args:
        folder: of the run; nothing in it changes.
        places: a job that names where the run's data and model lie now; None where they lay.

    Raises:
        RunError: no run, one that is not finished, or one that was not simulated.
    """

    def __init__(self, folder: str | Path, places: Job | None = None) -> None:
        self.folder = RunFolder(Path(folder))
        self.job = self.folder.read_job()
        if places is not None:
            self.job = at_places_of(self.job, places)
        self.result = self.folder.read_result()
        _, self.records = history.read(self.folder.history)
        if any(record.charge is None for record in self.records) or not self.records:
            raise RunError(
                f"{self.folder.path} was trained without a network: its rounds have no charge to replace; run it with "
                "sflam simulate"
            )
        self._assembly: Assembly | None = None
        self._bodies: dict[int, Bodies] = {}
        self._draws: dict[tuple[int, bool], Draws] = {}
        self._built: dict[int, tuple[NetworkSettings, Network]] = {}

    def job_with(self, settings: Sequence[str]) -> Job:
        """Return the run's job with other settings of its network and its plans; raises ConfigError for any others."""
        job = config.load(self.folder.config, settings)
        self.expect_replayable(job)
        return job

    def expect_replayable(self, job: Job) -> None:
        """Raise ConfigError where a job would learn something else, or must train to know its charges."""
        changed = changes(job, json.loads(json.dumps(plain(self.job))))
        if others := [name for name in changed if name.partition(".")[0] not in SECTIONS]:
            raise ConfigError(
                f"{', '.join(others)} would change what is learnt, which is replayed as it was; change keys of "
                f"[{'] and ['.join(SECTIONS)}] alone, or train with sflam simulate"
            )
        if not job.network.simulate:
            raise ConfigError("network.simulate = false charges nothing; leave it out")
        values = plain(job)
        for name in TRAINED:
            section, _, key = name.partition(".")
            if value := values[section][key]:
                raise ConfigError(
                    f"{name} = {json.dumps(value)} measures while it trains, and a replay does not train; train with "
                    "sflam simulate"
                )
        buffered = "learn.sync" if job.learn.sync != "round" else ""
        if key := buffered or uncertain(job) or uncertain(self.job):
            raise ConfigError(
                f"{key}: who delivers in a round depends on how long everything takes, so a replay would have others "
                "train; train with sflam simulate"
            )
        if job.learn.cache != "off":
            raise ConfigError(
                f"learn.cache = {json.dumps(job.learn.cache)}: what is kept is known while it trains, and a replay "
                "does not train; train with sflam simulate"
            )
        check(job)

    def charged(self, job: Job) -> list[RoundRecord]:
        """Return the rounds with what they cost with another job's network and plans.

        Raises:
            ConfigError: see :meth:`expect_replayable`.
            RunError: plans there would have trained something else.
            AllocationError: no plan holds the limits.
        """
        self.expect_replayable(job)
        if self._assembly is None:
            self._assembly = assemble(self.job)
        there = self._assembly
        travels = travelling(there.state, job.learn.personal)
        numbers = trained_numbers(travels, job.learn.practice.aggregation)
        around = RecordedFleet(there.fleet)
        fleet = simulated(job, around, there.halves, there.parts, there.splits.train, numbers)
        rounds = cast(SimulatedFleet, fleet)  # buffered ones were refused
        rounds.recalled = self._draws  # mini-batches hang on neither network nor plan
        rounds.built = self._built
        return [charged_anew(rounds, record, self._bodies) for record in self.records]

    def write(
        self, job: Job, records: Iterable[RoundRecord], folder: str | Path, *, picture: bool = True
    ) -> RunFolder:
        """Write a finished run with other charges: what was learnt is copied.

        Args:
            job: whose network and plans the charges are of.
            records: what :meth:`charged` returned.
            folder: to make.
            picture: draw its curves, which takes longer than charging it.

        Raises:
            RunError: there is a run in it, or it cannot be written.
        """
        written, found = RunFolder(Path(folder)), list(records)
        written.expect_free()
        name = written.path.name
        run = RunFolder(written.path.with_name(f".{name}.partial"))  # a folder with a configuration is a run
        with writing(f"run folder {written.path}", "choose another with --out"):
            if run.path.exists():
                shutil.rmtree(run.path)
        run.create(job)
        with writing(f"run folder {written.path}", "choose another with --out"):
            for source in (self.folder.adapter, self.folder.personal, self.folder.merged):
                if source.is_dir():
                    shutil.copytree(source, run.path / source.name)
            for source in (self.folder.partition, self.folder.partition_picture):
                if source.is_file():
                    shutil.copyfile(source, run.path / source.name)
        with History(run.history) as log:
            log.start(plain(job), job.seed)
            for record in found:
                log.append(record)
        if picture:
            devices = tuple(self.result["device_accuracy"])
            figure.save(draw_curves(found, title=name, method=job.learn.method, devices=devices), run.curves)
        run.write_result(self.result_of(found) | {"run_dir": str(written.path)})
        with writing(f"run folder {written.path}", "choose another with --out"):
            run.path.rename(written.path)
        return written

    def result_of(self, records: Sequence[RoundRecord]) -> dict[str, Any]:
        """Return the run's result with what other charges come to."""
        sums, last = totals(records), records[-1].charge
        assert last is not None, "replayed rounds have charges"
        return self.result | {
            "virtual_s": sums.virtual_s,
            "energy_j": sums.energy_j,
            "sensitivity": list(last.sensitivity),
            "sensitivity_error": list(last.sensitivity_error),
            "planning_share": planning_share(records),
        }


def replay(
    folder: str | Path, settings: Sequence[str] = (), out: str | Path | None = None
) -> list[RoundRecord]:
    """Return the rounds of a finished simulated run with what they cost with other settings of network and plans.

    Nothing is trained. To charge one run many times, keep a :class:`Recording`, which loads it once.

    Args:
        folder: of the run.
        settings: ``section.key=value``, of ``[network]`` and ``[plan]``.
        out: a folder to write as a finished run of its own.

    Raises:
        SflamError: see :class:`Recording`.
    """
    recording = Recording(folder)
    job = recording.job_with(settings)
    if out is not None:
        RunFolder(Path(out)).expect_free()
    records = recording.charged(job)
    if out is not None:
        recording.write(job, records, out)
    return records
