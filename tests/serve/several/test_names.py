"""Names of jobs are those of their files: what no address holds, and what two have, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sflam.cli.serving_several import jobs_of
from sflam.errors import ConfigError
from sflam.link.address import server_address
from sflam.serve.several.names import LONGEST, NAME, named_jobs, own_file


def test_a_job_is_named_by_its_file():
    files = [Path("a/digits.toml"), Path("b/words-2.toml"), Path("x_1.toml")]
    assert named_jobs(files) == dict(zip(("digits", "words-2", "x_1"), files, strict=True))


@pytest.mark.parametrize(
    "stem", ["a b", "über", "..", "my.job", "-a", "_a", "a" * (LONGEST + 1), "a/", "a\n"]
)
def test_a_name_that_no_address_holds_is_refused(stem):
    if NAME.fullmatch(Path(f"{stem}.toml").stem):
        stem += "?"
    with pytest.raises(ConfigError, match="rename the file"):
        named_jobs([Path("ok.toml"), Path(f"{stem}.toml")])


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_is_wrong_in_a_file_is_said_of_its_job(tmp_path, wrong):
    files = [tmp_path / "good.toml", tmp_path / "bad.toml"][:: -1 if wrong == 0 else 1]
    files[wrong].write_text("[learn]\nround = 2\n")
    files[1 - wrong].write_text("[learn]\nrounds = 2\n")
    with pytest.raises(ConfigError, match=r"^bad: unknown key of \[learn\] 'round'"):
        jobs_of(files, None, plan=None)


def test_one_name_is_one_jobs_in_either_case():
    with pytest.raises(ConfigError) as found:
        named_jobs([Path("a/one.toml"), Path("b/One.toml"), Path("c/x y.toml")])
    clash, odd = found.value.problems
    assert "a/one.toml and b/One.toml" in clash and "'x y'" in odd


def test_every_name_is_part_of_an_address_that_devices_take():
    for name in ("a", "A-b_c", "9" * LONGEST):
        assert named_jobs([Path(f"{name}.toml")]) and server_address(f"h:1/jobs/{name}")[3] == f"/jobs/{name}"


def test_files_of_a_job_lie_beside_those_of_a_server_of_one():
    assert own_file(Path("etc/devices.json"), "a") == Path("etc/devices-a.json")
