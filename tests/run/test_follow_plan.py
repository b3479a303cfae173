"""A plan is followed: computed or from its file, its cuts, servers and bits are those that train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sflam
from sflam import config
from sflam.errors import ConfigError
from sflam.learn.split_fleet import LocalFleet
from sflam.plan import ALL_LOCAL
from sflam.run import start as job
from sflam.run.follow_plan import follow
from tests.conftest import Cli, assert_refused, sets

SERVERS = (
    "network.scenario=square",
    "network.servers=2",
    "network.devices=4",
    "fleet.devices=4",
    "network.bandwidth_mhz=20",
)


def plan_file(path: Path, rows: list[dict[str, object]], **more: object) -> Path:
    path.write_text(json.dumps({"devices": rows} | more), encoding="utf-8")
    return path


def row(cut: int, server: int, bits: int = 8, bits_down: int = 0) -> dict[str, object]:
    return {"cut": cut, "server": server, "bits": bits, "bits_down": bits_down}


def test_without_a_plan_the_job_is_as_it_was() -> None:
    wanted = sflam.load(None)
    assert follow(wanted) == (wanted, ())


def test_a_file_decides_cuts_servers_and_bits(tmp_path: Path) -> None:
    path = plan_file(tmp_path / "plan.json", [row(1, 0), row(2, 1, 4), row(6, ALL_LOCAL), row(1, 1, 8, 5)])
    wanted = sflam.load(None, ["fleet.devices=4", f"fleet.plan={config.toml_value(str(path))}"])
    found, notes = follow(wanted)
    assert found.fleet.cuts == (1, 2, 6, 1) and found.fleet.servers == (0, 1, ALL_LOCAL, 1)
    assert found.fleet.bits_up == (8, 4, 8, 8) and found.fleet.bits_down == (8, 8, 8, 5)
    assert found.fleet.plan == "" and follow(found) == (found, ())
    assert "cuts 1 to 6, 4 to 8 bits up, 2 servers, 1 alone" in notes[0]


def test_what_all_have_in_common_stays_common(tmp_path: Path) -> None:
    path = plan_file(tmp_path / "plan.json", [row(1, 0), row(1, 0)])
    wanted = sflam.load(None, ["fleet.devices=2", f"fleet.plan={config.toml_value(str(path))}"])
    fleet = follow(wanted)[0].fleet
    assert (fleet.cuts, fleet.servers, fleet.bits_up, fleet.bits_down) == ((1, 1), (), (), ())


def test_a_computed_plan_is_that_of_sflam_plan(cli: Cli, tmp_path: Path) -> None:
    output = cli("plan", *sets(*SERVERS), "--json", "--out", tmp_path)
    devices = json.loads(output.out[-1])["devices"]
    found = follow(sflam.load(None, [*SERVERS, 'fleet.plan="computed"']))[0]
    assert found.fleet.cuts == tuple(one["cut"] for one in devices)
    assert found.fleet.servers == tuple(one["server"] for one in devices)
    of_file = [*SERVERS, f"fleet.plan={config.toml_value(str(tmp_path / 'plan.json'))}"]
    assert follow(sflam.load(None, of_file))[0] == found


def test_train_follows_and_resumes_without_the_file(small: tuple[str, ...], tmp_path: Path) -> None:
    """The run keeps what was decided: the file may be gone when it is resumed."""
    path = plan_file(tmp_path / "plan.json", [row(1, 0, 4), row(2, 1), row(2, ALL_LOCAL)])
    settings = ["fleet.devices=3", "learn.rounds=2", f"fleet.plan={config.toml_value(str(path))}"]
    wanted = sflam.load(None, [*small, *settings])
    run = job.start(wanted, tmp_path / "run")
    fleet = run.assembly.fleet
    assert isinstance(fleet, LocalFleet)
    assert fleet.servers.server_of == (0, 1, ALL_LOCAL) and fleet.devices.cuts == (1, 2, 0)
    assert fleet.exchange.bits[0] == (4, 8)
    assert any(note.startswith("plan (") for note in run.assembly.notes)
    next(run.rounds())
    path.unlink()
    again = job.resume(tmp_path / "run")
    assert len([*again.rounds()]) == 1
    whole = job.start(wanted_as(again), tmp_path / "whole")
    for _ in whole.rounds():
        pass
    assert all(torch.equal(again.state[name], whole.state[name]) for name in whole.state)


def wanted_as(run: job.Run) -> sflam.Job:
    return run.job


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no JSON"),
        ("[]", "lists no devices"),
        ('{"devices": []}', "gives no device anything: it is infeasible"),
        (
            '{"devices": [], "advice": ["raise plan.deadline"]}',
            "gives no device anything: raise plan.deadline",
        ),
        (json.dumps({"devices": [row(1, 0)]}), "is of 1 devices, but fleet.devices is 10"),
        (json.dumps({"devices": [row(-1, 0)] * 10}), "cut of device 0 is -1"),
        (json.dumps({"devices": [row(1, -2)] * 10}), "server of device 0 is -2"),
        (json.dumps({"devices": [row(1, True)] * 10}), "server of device 0 is True"),
        (json.dumps({"devices": ["x"] * 10}), "cut of device 0 is None"),
        (json.dumps({"devices": [{"cut": 1}] * 10}), "bits of device 0 is None"),
        (json.dumps({"devices": [row(1, 0, 4.5)] * 10}), "bits of device 0 is 4.5"),  # type: ignore[arg-type]
        ("[" * 100_000, "is no JSON"),
        (json.dumps({"devices": [row(1, 0, 99)] * 10}), "fleet.bits_up holds 99"),
        (json.dumps({"devices": [row(9, 0)] * 10}), "9"),
    ],
)
def test_files_that_are_no_plan_for_this_job(cli: Cli, tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content, encoding="utf-8")
    assert_refused(cli("train", "--plan", path, "--out", tmp_path / "run"), sentence)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (
            -1,
            r"fleet.servers = \[.*\] does not go with sflam serve: a device that is served holds the blocks",
        ),
        (1, r"fleet.servers names server 0, and .*servers.json has no trunk server of that number \(none\)"),
    ],
)
def test_a_served_plan_of_several_servers(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, server: int, sentence: str
) -> None:
    path = plan_file(tmp_path / "plan.json", [row(1, 0), {"cut": 2, "bits": 4}, row(1, server)])
    where = ("--plan", path, "--out", tmp_path / "run", "--servers", tmp_path / "servers.json")
    assert_refused(cli("serve", *sets(*small, "fleet.devices=3"), *where), sentence)


def test_other_refusals(cli: Cli, tmp_path: Path) -> None:
    missing = cli("train", "--plan", tmp_path / "nowhere.json")
    assert_refused(
        missing, "cannot be read .*give a plan.json that sflam plan --out wrote, 'computed' or 'measured'"
    )
    both = ["fleet.cuts=[1, 1]", "fleet.devices=2", 'fleet.plan="computed"']
    with pytest.raises(ConfigError, match=r"fleet.cuts = \[1, 1\] do not go together: the plan decides that"):
        follow(sflam.load(None, both))
    with pytest.raises(ConfigError, match="this method has no cut to plan"):
        follow(sflam.load(None, ['fleet.plan="computed"', 'learn.method="central"']))


def test_the_example_of_several_servers_is_planned_unevenly() -> None:
    path = Path(__file__).parents[2] / "examples" / "several-servers.toml"
    fleet = follow(config.load(path))[0].fleet
    assert set(fleet.servers) == {0, 1, 2} and len(set(fleet.cuts)) > 1


@pytest.mark.parametrize(
    "chosen", ['["clock", "bits"]', '["clock", "bits", "cut"]', '["clock", "cut"]', "[]"]
)
def test_a_simulated_run_follows_cuts_and_plans_bits_round_by_round(
    small: tuple[str, ...], tmp_path: Path, chosen: str
) -> None:
    more = ("network.simulate=true", "plan.sensitivity=1", f"plan.optimize={chosen}", "learn.rounds=1")
    run = job.start(sflam.load(None, [*small, *more, "fleet.plan=computed"]), tmp_path / "run")
    [record] = run.rounds()
    assert record.charge is not None and record.charge.cuts == run.job.fleet.cuts
    assert run.job.fleet.bits_up == () and ("bits" in chosen) == (record.charge.method == "bits")


def test_a_simulated_run_refuses_bits_that_only_a_file_chose(small: tuple[str, ...], tmp_path: Path) -> None:
    path = plan_file(tmp_path / "plan.json", [row(1, 0, 4), row(1, 0), row(1, 0)])
    wanted = [*small, "network.simulate=true", f"fleet.plan={config.toml_value(str(path))}"]
    with pytest.raises(ConfigError, match=r"fleet.plan = .* gives 4 to 8 bits up .* plan.optimize"):
        follow(sflam.load(None, wanted))
