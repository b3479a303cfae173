"""What a folder's comparison was asked for, written beside its runs: by it, folders of several machines are joined."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sflam.compare.study import Study
from sflam.config import Job, load, overrides, plain
from sflam.errors import ConfigError, RunError
from sflam.files import from_json, reading, replace_file, writing
from sflam.run.contents import by_content, contents_of

ASKED = "asked.json"


def write_asked(study: Study, folder: Path) -> None:
    """Write what a comparison is asked for into its folder; raises RunError where it cannot be written."""
    known = contents_of(study.job) if study.contents is None else study.contents
    values = {
        "set": overrides(study.job),
        "contents": dict(known),
        "methods": list(study.methods),
        "seeds": study.seeds,
        "sweeps": {axis: list(values) for axis, values in study.sweeps.items()},
        "rates": None if study.rates is None else list(study.rates),
        "targets": list(study.targets),
        "baseline": study.baseline,
    }
    path = folder / ASKED
    with writing(path, "choose another with --out"):
        replace_file(path, (json.dumps(values, indent=1) + "\n").encode())


def read_asked(folder: Path) -> Study:
    """Return what the comparison in a folder was asked for.

    The files that its job names may be elsewhere: what they held is known.

    Raises:
        RunError: there is no comparison, or what it was asked for is damaged.
        ConfigError: its plug-ins cannot be loaded here.
    """
    path = folder / ASKED
    if not path.is_file():
        raise RunError(f"{folder} holds no comparison ({ASKED}); give a folder that sflam compare wrote")
    with reading(path, "check the disk"):
        text = path.read_text(encoding="utf-8")
    try:
        values = from_json(text)
        contents = {str(name): str(found) for name, found in values["contents"].items()}
        return Study(
            job=load(None, [str(item) for item in values["set"]]),
            methods=tuple(map(str, values["methods"])),
            seeds=int(values["seeds"]),
            sweeps={str(axis): tuple(map(float, each)) for axis, each in values["sweeps"].items()},
            rates=None if values["rates"] is None else tuple(map(float, values["rates"])),
            targets=tuple(map(float, values["targets"])),
            baseline=str(values["baseline"]),
            contents=contents,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"{path} is damaged ({reason}); ask sflam compare for the same again, which repeats no finished run"
        ) from error


def expect_same(first: Path, one: Study, second: Path, other: Study) -> None:
    """Raise ConfigError, which names what differs, unless two folders' comparisons are the same one.

    Files count by their content; targets and the baseline change no run, and are the first's.
    """
    ours, theirs = _flat(one), _flat(other)
    problems = [
        f"{name} is {json.dumps(ours.get(name))} in {first}, {json.dumps(theirs.get(name))} in {second}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if problems:
        more = f", and {len(problems) - 3} more settings differ" if len(problems) > 3 else ""
        raise ConfigError(
            f"these folders hold different comparisons: {'; '.join(problems[:3])}{more}; join folders of one, asked "
            "for with the same job and options"
        )


def _flat(study: Study) -> dict[str, Any]:
    found: dict[str, Any] = {
        "methods": list(study.methods),
        "seeds": study.seeds,
        "sweeps": {axis: sorted(values) for axis, values in study.sweeps.items()},
        "rates": study.rates,
    }
    job: Job = by_content(study.job, study.contents or {})
    for section, values in plain(job).items():
        inner = values if isinstance(values, Mapping) else None
        found |= {section: values} if inner is None else {f"{section}.{key}": inner[key] for key in inner}
    return found
