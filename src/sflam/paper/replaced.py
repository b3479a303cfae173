"""A part that measures average-replace-one stability against the number of tuned layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from sflam.config import Job
from sflam.errors import RunError
from sflam.files import from_json, reading, replace_file, writing
from sflam.paper.along import panels, table
from sflam.paper.part import Drawn, OnLine, Outcome, PartWork
from sflam.report.statistics import interval_words
from sflam.run.contents import content_digest
from sflam.stability.measure import Asked, measure, trainings

TRAINING_S = 2.0
"""CPU seconds of a training of a few dozen samples, about."""


@dataclass(frozen=True, kw_only=True)
class StabilityPart:
    """Trainings with one sample replaced; arms are ``job tuned=1``, ``job tuned=3``, ...

    Attributes:
        name: in the file.
        title: for people.
        job: what is trained; its seed is the first.
        asked: what is measured, at one draw.
        draws: independent training sets, with seeds from the job's own on.
    """

    name: str
    title: str
    job: Job
    asked: Asked
    draws: int

    place: ClassVar[str] = "stability"

    def run(self, folder: Path, on_line: OnLine, jobs: int | None) -> Outcome:
        """Train what is not there yet; raises SflamError where it cannot be measured."""
        with writing(folder, "choose another with --out"):
            folder.mkdir(parents=True, exist_ok=True)
        measured: dict[str, dict[str, list[float | None]]] = {}
        for arm, job, asked, path in self._points(folder):
            if not path.is_file():
                [found] = measure(job, asked)
                with writing(path, "choose another folder"):
                    replace_file(path, (json.dumps({"instability": found.measured}) + "\n").encode())
                on_line(f"{self.name}: {arm}, seed {job.seed}: measured {found.measured:.3g} nats")
            measured.setdefault(arm, {"instability": []})["instability"].append(_read(path))
        words = interval_words(self.draws).replace("seeds", "training sets")
        head, rows = table(measured, ["instability"])
        note = f"bars: {words}"
        figures = {self.name: Drawn(panels(measured, ["instability"], "tuned"), note)}
        caption = f"Means over {self.draws} independent training sets, ±: {words}"
        return Outcome(
            measured=measured,
            figures=figures,
            head=head,
            rows=rows,
            caption=caption,
        )

    def work(self, folder: Path) -> PartWork:
        """Return how many measurements are there."""
        there = [path.is_file() for _, _, _, path in self._points(folder)]
        missing = there.count(False)
        states = {"finished": there.count(True), "to measure": missing}
        each = trainings(replace(self.asked, layers=(1,)), 1) * TRAINING_S
        return PartWork(part=self.name, what="measurements", states=states, seconds=missing * each)

    def _points(self, folder: Path) -> Iterator[tuple[str, Job, Asked, Path]]:
        for number in range(self.draws):
            job = replace(self.job, seed=self.job.seed + number)
            for count in self.asked.layers:
                asked = replace(self.asked, layers=(count,))
                own = "-".join(str(value) for value in asdict(asked).values() if not isinstance(value, bool))
                own = "".join(letter for letter in own if letter.isalnum() or letter == "-")
                yield f"job tuned={count}", job, asked, folder / f"stability-{content_digest(job)}-{own}.json"


def _read(path: Path) -> float:
    with reading(path, "remove it, and it is measured again"):
        text = path.read_text(encoding="utf-8")
    try:
        return float(from_json(text)["instability"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged; remove it, and it is measured again") from error
