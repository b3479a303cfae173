"""A job is read from TOML and --set, refused with every problem at once, and written back unchanged."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.config import LATER, Job, digest, load, to_toml
from sflam.data.settings import DataSettings
from sflam.errors import ConfigError
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.settings.practice import METHODS
from sflam.model.settings import ModelSettings

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
JOBS = st.builds(
    Job,
    seed=st.integers(0, 2**63 - 1),
    model=st.builds(
        ModelSettings,
        name=TEXT,
        cut=st.integers(0, 99),
        alpha=POSITIVE,
        dropout=st.floats(0, 1, exclude_max=True),
        targets=st.lists(TEXT, max_size=3).map(tuple),
    ),
    data=st.builds(DataSettings, name=TEXT, alpha=POSITIVE, input=st.just("") | TEXT, label=TEXT),
    fleet=st.lists(st.integers(0, 99), min_size=1, max_size=5).map(
        lambda cuts: FleetSettings(devices=len(cuts), cuts=tuple(cuts))
    ),
    learn=st.builds(
        LearnSettings,
        method=st.sampled_from(METHODS),
        rounds=st.integers(1, 10**6),
        lr=POSITIVE,
        weight_decay=st.floats(0, 1e300),
        canonical=st.booleans(),
    ),
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "job.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(path: Path | None, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return caught.value.problems


def test_no_file_is_the_defaults() -> None:
    assert load(None) == Job()


def test_set_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 5\n[learn]\nrounds = 7\nlr = 1\n[fleet]\ndevices = 2\ncuts = [0, 1]\n")
    job = load(path, ["learn.rounds=9", "model.name=vit", "learn.rounds = 11"])
    assert (job.seed, job.learn.rounds, job.learn.lr, job.learn.batch) == (5, 11, 1.0, LearnSettings().batch)
    assert type(job.learn.lr) is float and job.fleet.cuts == (0, 1) and job.model.name == "vit"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("model.name=google/vit-base", "model", "name", "google/vit-base"),
        ('model.name="7"', "model", "name", "7"),
        ("model.name=a=b#c", "model", "name", "a=b#c"),
        ('model.targets=["query", "value"]', "model", "targets", ("query", "value")),
        ("model.targets=[]", "model", "targets", ()),
        ("learn.canonical=true", "learn", "canonical", True),
        ("learn.lr=1e-4", "learn", "lr", 1e-4),
        ("data.input=", "data", "input", ""),
    ],
)
def test_set_takes_toml_and_bare_words(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(load(None, [override]), section), key) == value


def test_set_reaches_the_top_level() -> None:
    assert load(None, ["seed=12"]).seed == 12


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("learn.roundz=3", "unknown key of [learn] 'roundz', did you mean 'rounds'?"),
        ("lern.rounds=3", "unknown section 'lern', did you mean 'learn'?"),
        ("sead=3", "unknown setting 'sead', did you mean 'seed'?"),
        ("model.rounds=3", "rounds is in [model]; it belongs in [learn]"),
        ("rounds=3", "rounds is at the top of the file; it belongs in [learn]"),
        ("learn.rounds=2.5", "learn.rounds is 2.5; it must be a whole number"),
        ("learn.rounds=true", "learn.rounds is true; it must be a whole number"),
        ("learn.rounds=many", 'learn.rounds is "many"; it must be a whole number'),
        ("learn.lr=true", "learn.lr is true; it must be a finite number"),
        ("learn.lr=nan", "learn.lr is nan; it must be a finite number"),
        ("learn.lr=inf", "learn.lr is inf; it must be a finite number"),
        ("learn.lr=1" + "0" * 400, "it must be a finite number"),
        ("learn.rounds=" + "9" * 5000, "it must be a whole number"),
        ("learn.canonical=1", "learn.canonical is 1; it must be true or false"),
        ("model.name=7", "model.name is 7; it must be text in quotes"),
        ("model.name=2020-01-01", "model.name is 2020-01-01; it must be text in quotes"),
        ("model.name=a\udc80b", "not valid Unicode"),
        ("fleet.cuts=[1, 2.5]", "fleet.cuts is [1, 2.5]; it must be a list, each item a whole number"),
        ("fleet.cuts=3", "fleet.cuts is 3; it must be a list, each item a whole number"),
        ("fleet.cuts=" + "[" * 5000, "it must be a list"),
        ("learn=3", "learn is 3, but it is a section; write its settings under [learn]"),
        ("learn.rounds", "is not an assignment; write section.key=value"),
        ("learn..rounds=1", "is not an assignment; write section.key=value"),
        ("learn.rounds.x=1", 'learn.rounds is {"x" = 1}; it must be a whole number'),
        ("seed=-1", "seed is -1; it must be 0 or more"),
        ("seed={a = 1}", 'seed is {"a" = 1}; it must be a whole number'),
    ],
)
def test_a_wrong_setting_is_refused_with_its_fix(override: str, sentence: str) -> None:
    [problem] = problems(None, override)
    assert sentence in problem


def test_a_key_inside_a_plain_value_is_refused(tmp_path: Path) -> None:
    [problem] = problems(write(tmp_path, "seed = 1\n"), "seed.x=3")
    assert "names a key inside a plain value" in problem


def test_one_override_cannot_smuggle_a_second() -> None:
    [problem] = problems(None, "learn.rounds=3\nlr = 9")
    assert "learn.rounds" in problem


def test_all_problems_of_all_sections_come_together(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        seed = "x"
        [model]
        rank = 0
        cut = -1
        ranc = 3
        [data]
        alpha = 0
        [learn]
        rounds = 0
        lr = "fast"
        batch = 0
        [lern]
        """,
    )
    found = problems(path, "fleet.devices=0", "oops")
    expected = [
        "--set 'oops'",
        "seed is",
        "ranc",
        "model.cut",
        "data.alpha",
        "learn.rounds",
        "learn.lr is",
        "learn.batch",
        "lern",
        "fleet.devices",
    ]
    for start in expected:
        assert any(start in problem for problem in found), (start, found)
    # "ranc" may be the user's rank, so the file's other rank = 0 is not reported beside it.
    assert len(found) == len(expected), found


def test_a_refused_key_causes_no_second_complaint(tmp_path: Path) -> None:
    path = write(tmp_path, '[fleet]\ndevices = "3"\ncuts = [1, 1, 1]\n')
    assert problems(path) == ['fleet.devices is "3"; it must be a whole number']


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = 1\nlearn = \n", "job.toml, line 2, column 9: not valid TOML: Invalid value"),
        ("[learn]\nrounds = 1\nrounds = 2\n", "line 3"),
        ("seed = 1\n[learn]\nx = [1,\n\n", "line 5: not valid TOML"),
        (b"seed = 1\nname = '\xff'\n", "line 2: not UTF-8 text"),
        ("x = " + "[" * 5000, "not valid TOML"),
        ("x = " + "9" * 5000, "not valid TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_one_line_with_its_number(
    tmp_path: Path, text: str | bytes, sentence: str
) -> None:
    [problem] = problems(write(tmp_path, text))
    assert sentence in problem and "\n" not in problem


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        [problem] = problems(path)
        assert reason in problem and str(path) in problem


def test_windows_files_are_read(tmp_path: Path) -> None:
    assert load(write(tmp_path, b"\xef\xbb\xbfseed = 3\r\n[learn]\r\nrounds = 4\r\n")).learn.rounds == 4


@settings(deadline=None)  # the first example pays for imports
@given(JOBS)
def test_a_job_survives_toml(tmp_path_factory: pytest.TempPathFactory, job: Job) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_bytes(to_toml(job).encode())
    assert load(path) == job
    assert digest(load(path)) == digest(job)


def test_toml_lists_every_setting_once() -> None:
    written = tomllib.loads(to_toml(Job()))
    job = {name: own for name, own in dataclasses.asdict(Job()).items() if name not in LATER}
    assert list(written) == list(job)
    for name, section in job.items():
        if isinstance(section, dict):
            assert set(written[name]) == {key for key, value in section.items() if value is not None}


def test_the_digest_tells_jobs_apart_and_is_the_same_in_every_process() -> None:
    job = load(None, ["learn.rounds=3"])
    assert digest(job) != digest(Job()) and digest(job) == digest(load(None, ["learn.rounds=3"]))
    assert len(digest(job)) == 12
    code = "from sflam.config import *; print(digest(load(None, ['learn.rounds=3'])))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(job)


def test_a_whole_number_for_a_float_is_the_same_job() -> None:
    assert digest(load(None, ["learn.lr=1"])) == digest(load(None, ["learn.lr=1.0"]))
