"""What cuts give away as a limit of plans: ``plan.least_leakage`` reads the table of ``sflam audit``.

What a device sends is a function of what a shallower cut would send, so a limit on what may be given away is a least
cut: the shallowest audited one at which, and at all audited ones behind it, no attack got more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sflam.allocate.settings import CHOOSE_BITS
from sflam.config import Job
from sflam.errors import ConfigError
from sflam.files import from_json, reading
from sflam.learn.methods import METHODS
from sflam.plan import Plan
from sflam.sizes import FLOAT_BITS, IDENTITY

HALF = 0.5
"""Of the way from a guess to the best attack: the most that may be given away where ``plan.most_leakage`` is 0."""


@dataclass(frozen=True)
class LeakRow:
    """What the best attack of an audit got at one cut, width and noise.

    Attributes:
        cut: blocks on the device.
        bits: of a value; ``FLOAT_BITS`` for floats.
        noise: in clips.
        leak: score of the best attack on the samples, as that of the audit's measure: more is worse.
    """

    cut: int
    bits: int
    noise: float
    leak: float


@dataclass(frozen=True)
class LeakTable:
    """The table of an audit.

    Attributes:
        path: of the file.
        model: that was audited.
        scheme: of the quantizer.
        rows: per cut, width and noise.
        guess: the score of a guess.
        measure: what scores are.
    """

    path: str
    model: str
    scheme: str
    rows: tuple[LeakRow, ...]
    guess: float
    measure: str

    def at(self, bits: int, noise: float) -> dict[int, float]:
        """Return cut -> what is given away there at a width: that of the next wider one where it was not audited.

        Raises:
            ConfigError: the audit has no such row.
        """
        found: dict[int, float] = {}
        near = [row for row in self.rows if row.noise == noise and row.bits >= bits]
        for row in sorted(near, key=lambda row: -row.bits):  # the narrowest of each cut last
            found[row.cut] = row.leak
        if not found:
            width = "floats" if bits >= FLOAT_BITS else f"{bits} bits or more"
            raise ConfigError(
                f"plan.least_leakage = {self.path!r} has no row of {width} with noise {noise:g}; audit that as well: "
                f"sflam audit --bits {bits} --noise {noise:g}"
            )
        return found

    def limit(self, most: float) -> float:
        """Return the largest score allowed, where ``plan.most_leakage`` is ``most``."""
        return most or self.guess + HALF * (max(row.leak for row in self.rows) - self.guess)


@dataclass(frozen=True)
class LeakLevel:
    """One step of the trade between what is given away and what a round takes.

    Attributes:
        leak: the most that the best attack got at the cuts allowed.
        cut: the least cut.
        plan: the best with no shallower one.
    """

    leak: float
    cut: int
    plan: Plan


def least_cut(job: Job) -> int:
    """Return the fewest blocks that plans may leave on a device; 0 without ``plan.least_leakage``.

    Raises:
        ConfigError: the audit cannot be read, is of another model or quantizer, lacks the width or noise of the job, or
            no audited cut keeps the limit.
    """
    if not job.plan.least_leakage:
        return 0
    table = table_of(job)
    found, limit = table.at(_bits(job), job.privacy.noise), table.limit(job.plan.most_leakage)
    allowed = [cut for cut in found if _behind(found, cut) <= limit]
    if not allowed:
        best = min(found, key=lambda cut: _behind(found, cut))
        raise ConfigError(
            f"plan.least_leakage = {job.plan.least_leakage!r}: no audited cut keeps every attack at {limit:.3g} or "
            f"less ({table.measure}); cut {best} gives away {_behind(found, best):.3g}; raise plan.most_leakage, send "
            "fewer bits, or add noise (privacy.noise) and audit that"
        )
    return min(allowed)


def cuts_to_try(job: Job, blocks: int) -> range:
    """Return the cuts that plans for one server look at, of a model of so many blocks.

    With every block on the device, activations would still be sent to the head: not tried.

    Raises:
        ConfigError: the limit leaves none.
    """
    least = least_cut(job)
    if least >= blocks:
        raise ConfigError(
            f"plan.least_leakage allows cuts from {least} on, and plans try those below {blocks}, the blocks of "
            f"{job.model.name!r}; raise plan.most_leakage, or add noise (privacy.noise) and audit that"
        )
    return range(least, blocks)


def expect_given_cuts(job: Job) -> None:
    """Raise ConfigError where a job's own cuts give away more than ``plan.least_leakage`` allows."""
    if not job.plan.least_leakage or not METHODS[job.learn.method].split:
        return
    least = least_cut(job)
    cuts = [item.cut for item in job.placements if not item.alone]
    if cuts and min(cuts) < least:
        key = "fleet.cuts" if job.fleet.cuts else "model.cut"
        raise ConfigError(
            f"{key} = {min(cuts)} gives away more than plan.least_leakage allows, which is from cut {least} on; raise "
            'it, raise plan.most_leakage, or let plans choose it (plan.optimize = ["clock", "cut"])'
        )


def levels(job: Job) -> Iterator[tuple[float, int, Job]]:
    """Yield (leak, least cut, job) for every audited least cut, from the shallowest on; nothing without an audit.

    Each job allows just as much as its least cut gives away. A deeper cut that gives away no less is left out.
    """
    if not job.plan.least_leakage:
        return
    found = table_of(job).at(_bits(job), job.privacy.noise)
    last = float("inf")
    for cut in sorted(found):
        if (leak := _behind(found, cut)) < last:
            last = leak
            yield leak, cut, replace(job, plan=replace(job.plan, most_leakage=leak))


def table_of(job: Job) -> LeakTable:
    """Return the audit that ``plan.least_leakage`` names.

    Raises:
        ConfigError: it cannot be read, or is of another model or quantizer.
    """
    text = job.plan.least_leakage
    path = Path(text).expanduser()
    with reading(f"plan.least_leakage = {text!r}", "give the audit.json that sflam audit wrote", ConfigError):
        marks = path.stat()
        table = _read(text, path, marks.st_mtime_ns, marks.st_size)
    if Path(table.model).name != Path(job.model.name).name:
        raise ConfigError(
            f"plan.least_leakage = {text!r} is an audit of {table.model!r}, but model.name is {job.model.name!r}; "
            "audit this one"
        )
    if table.scheme not in (job.quant.scheme, IDENTITY):
        raise ConfigError(
            f"plan.least_leakage = {text!r} is an audit of {table.scheme!r}, but quant.scheme is {job.quant.scheme!r}; "
            "audit this one"
        )
    return table


@lru_cache(maxsize=8)
def _read(text: str, path: Path, changed: int, size: int) -> LeakTable:
    """Return the table of a file that was ``changed`` then and has that ``size``."""
    try:
        found = from_json(path.read_bytes())
        rows = tuple(map(_row, found["cells"]))
        about = [each for each in found["findings"] if each["about"] in ("images", "texts")]
        guess, measure = float(about[0]["guess"]), str(about[0]["measure"])
        if not rows or any(not 0 <= row.leak <= 1 for row in rows):
            raise ValueError("its cells have no scores from 0 to 1")
        return LeakTable(text, str(found["model"]), str(found["scheme"]), rows, guess, measure)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"plan.least_leakage = {text!r} is no audit ({type(error).__name__}: {error}); give the audit.json that "
            "sflam audit wrote"
        ) from error


def _row(cell: dict[str, Any]) -> LeakRow:
    bits = FLOAT_BITS if cell["bits"] is None else int(cell["bits"])
    return LeakRow(int(cell["cut"]), bits, float(cell["noise"]), float(cell["leak"]))


def _behind(found: dict[int, float], cut: int) -> float:
    """Return the most that is given away at a cut, or at any audited one behind it."""
    return max(leak for other, leak in found.items() if other >= cut)


def _bits(job: Job) -> int:
    """Return the most bits that a device may send a value with."""
    if job.quant.scheme == IDENTITY:
        return FLOAT_BITS
    if "bits" in job.plan.optimize or job.plan.method in CHOOSE_BITS:
        return job.plan.bits_most
    widths: Sequence[int] = [item.bits_up for item in job.placements if not item.alone]
    return max(widths, default=job.quant.bits_up)
