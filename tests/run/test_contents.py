"""Jobs are equal by what their files hold, not by where these lie."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam import config
from sflam.config import digest
from sflam.run.contents import at_places_of, content, content_digest, contents_of


def job_of(folder: Path, **more: str) -> config.Job:
    """Return a job whose data is a folder's table."""
    return config.load(None, [f"data.name={folder / 'data.csv'}", *(f"{k}={v}" for k, v in more.items())])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with a table."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data.csv").write_text("input,label\n1,2\n")
    return tmp_path / "here"


def test_a_moved_file_leaves_the_digest_and_a_changed_one_does_not(table: Path, tmp_path: Path) -> None:
    before = content_digest(job_of(table))
    assert len(before) == 12
    table.rename(tmp_path / "there")
    there = tmp_path / "there"
    assert content_digest(job_of(there)) == before != digest(job_of(there))
    (there / "data.csv").write_text("input,label\n1,3\n")
    assert content_digest(job_of(there)) != before
    assert content_digest(replace(job_of(there), seed=1)) != content_digest(job_of(there))


def test_a_job_without_files_keeps_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # the named data, not the folder, is what trains
    (tmp_path / "nano-vit").mkdir()
    job = config.load(None)
    assert content_digest(job) == digest(job) and contents_of(job) == {}


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "x.bin").write_bytes(b"one")
        (folder / "y.bin").write_bytes(b"two")
    (second / ".cache").mkdir()
    (second / ".cache" / "z").write_bytes(b"hidden")
    assert content(first) == content(second)
    (second / "y.bin").rename(second / "w.bin")
    assert content(first) != content(second)


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = content(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(2, 2))
    assert content(path) != first


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), min_size=2, max_size=2, unique=True))
def test_files_that_differ_have_other_digests(tmp_path_factory: pytest.TempPathFactory, both: list) -> None:
    found = set()
    for pair in both:
        folder = tmp_path_factory.mktemp("pair")
        for name, body in zip("ab", pair, strict=True):
            (folder / name).write_bytes(body)
        found.add(content(folder))
    assert len(found) == 2


def test_known_contents_stand_in_for_files_that_are_elsewhere(table: Path) -> None:
    job = job_of(table)
    known = contents_of(job)
    before = content_digest(job)
    (table / "data.csv").unlink()
    assert content_digest(job, known) == before != content_digest(job)


def test_places_are_taken_from_another_job(table: Path, tmp_path: Path) -> None:
    job, other = job_of(table), job_of(tmp_path / "there")
    assert at_places_of(replace(job, seed=3), other) == replace(other, seed=3)
