"""``sflam plan`` for several servers: the reference square, network files, JSON, tables, the map, bad input."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sflam import config
from sflam.plan import ALL_LOCAL
from sflam.planner import edge as planning_edge
from sflam.planner.cell import decide, measured
from tests.conftest import Cli, assert_refused

REF = ("--scenario", "refB", "--users", 6, "--servers", 2)
NETWORK = """
[model]
name = "bert-base-uncased"
[plan]
samples = 400
[network]
scenario = "square"
devices = 5
server_kappa = 1.5e-26
[[network.server]]
position_m = [100, 100]
clock_ghz = 1.5
flops_per_cycle = 2000
[[network.server]]
position_m = [400, 400]
clock_ghz = 1.5
flops_per_cycle = 500
bandwidth_mhz = 10
"""


def planned(cli: Cli, *arguments: object) -> dict[str, Any]:
    output = cli("plan", *arguments, "--json")
    assert output.code == 0, output.err
    (line,) = output.out
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_reference_square_gives_the_known_plan(cli: Cli) -> None:
    found = planned(cli, "--scenario", "refB", "--users", 20, "--servers", 4)
    assert found["method"] == "dual" and found["objective"] == pytest.approx(51.195303, rel=1e-8)
    assert found["gap"] <= 1e-3 and found["lower_bound"] <= found["objective"]
    costs = found["costs"]
    assert costs["delay"] + costs["energy"] + costs["instability"] == pytest.approx(found["objective"])
    users = found["devices"]
    assert [one["name"] for one in users] == [f"user-{index}" for index in range(20)]
    assert all(one["layers"] == one["cut"] and 1 <= one["layers"] <= 12 for one in users)
    for index, server in enumerate(found["servers"]):
        mine = [one for one in users if one["server"] == index]
        assert server["users"] == len(mine)
        assert server["bandwidth"] == pytest.approx(sum(one["bandwidth"] for one in mine))
        assert server["clock"] == pytest.approx(sum(one["server_clock"] for one in mine))
        assert server["bandwidth"] <= 20e6 * (1 + 1e-9) and server["clock"] <= 1.5e9 * (1 + 1e-9)


def test_servers_speed_seed_and_round_are_options(cli: Cli) -> None:
    slow = planned(cli, *REF, "--server-flops-per-cycle", 64)
    assert any(one["server"] == ALL_LOCAL and one["layers"] == 12 for one in slow["devices"])
    assert slow["objective"] > planned(cli, *REF)["objective"]
    later = decide(config.load(None, ["network.scenario=refB", "network.servers=2"]), round_number=1)
    first = decide(config.load(None, ["network.scenario=refB", "network.servers=2"]))
    assert first.edge is not None and later.edge is not None
    assert np.array_equal(first.edge.network.max_clock, later.edge.network.max_clock)
    assert not np.any(first.edge.network.gain == later.edge.network.gain)


@pytest.mark.usefixtures("rendered")
def test_all_methods_are_compared_and_all_is_written(cli: Cli, tmp_path: Path) -> None:
    output = cli("plan", *REF, "--compare", "--out", tmp_path / "plan")
    text = "\n".join(output.out)
    assert output.code == 0 and "…" not in text and "bits" not in text.split("\n")[2]
    assert "6 users, 2 servers" in text and "layers" in text and "instability" in text
    for name in ("dual", "fractional", "hungarian", "nearest", "card", "all-edge", "all-local", "equal"):
        assert name in text
    written = {path.name for path in (tmp_path / "plan").iterdir()}
    assert written == {"plan.json", "plan.csv", "map.png"}
    assert (tmp_path / "plan" / "map.png").stat().st_size > 5_000
    found = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert all(one["ratio"] >= 1 - 1e-9 for one in found["compare"])
    with (tmp_path / "plan" / "plan.csv").open() as file:
        assert [int(row["server"]) for row in csv.DictReader(file)] == [
            one["server"] for one in found["devices"]
        ]


def test_a_network_file_with_several_servers(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(NETWORK)
    found = planned(cli, tmp_path / "net.toml")
    assert found["model"] == "bert-base-uncased" and len(found["servers"]) == 2
    assert found["servers"][1]["bandwidth"] <= 10e6 * (1 + 1e-9)
    assert {one["server"] for one in found["devices"]} <= {ALL_LOCAL, 0, 1}
    fast = planned(cli, tmp_path / "net.toml", "--latency-weight", 0.95)
    assert fast["costs"]["delay"] / 1.9 < found["costs"]["delay"]  # seconds of all users
    assert fast["costs"]["energy"] / 0.1 > found["costs"]["energy"]  # joules


def test_memory_is_held_and_a_user_without_room_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(NETWORK.replace("devices = 5", "devices = 5\nmemory_gb = 1.2"))
    found = planned(cli, tmp_path / "net.toml")
    assert max(one["layers"] for one in found["devices"]) < 12
    output = cli("plan", tmp_path / "net.toml", "--set", "network.memory_gb=0.01")
    assert_refused(output, "no split fits the memory of device-0, device-1, device-2 and 2 more")


def test_one_server_is_planned_with_a_method_for_several(cli: Cli) -> None:
    found = planned(cli, "--method", "dual", "--devices", 3)
    assert found["method"] == "dual" and len(found["servers"]) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*REF, "--method", "duel"), "plan.method is 'duel'; choose one of"),
        ((*REF, "--method", "bcd"), "this method plans for one server; use one of dual"),
        ((*REF, "--set", "plan.split_most=13"), "splits 1 to 13 of a model with 12 layers"),
        ((*REF, "--set", "plan.split_least=0"), "plan.split_least is 0; it must be at least 1"),
        ((*REF, "--set", "plan.deadline=3"), "plan.deadline = 3.0 do not go together"),
        ((*REF, "--optimize", "bits"), "bits are not chosen among several servers"),
        ((*REF, "--pareto", 5), "--pareto is for one server"),
        ((*REF, "--round", -1), "a round from 0 on"),
        ((*REF, "--latency-weight", 0), "plan.latency_weight = 0.0"),
        ((*REF, "--set", "network.radius_m=100"), "scenario refB fixes it"),
        (("--scenario", "refB", "--users", 0), "devices is 0"),
        (("--scenario", "refB", "--servers", 0), "servers is 0"),
        (("--scenario", "refB", "--users", 30, "--method", "exhaustive"), "use method dual"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    cli: Cli, arguments: tuple[object, ...], sentence: str
) -> None:
    assert_refused(cli("plan", *arguments), sentence)


def test_a_round_may_have_several_mini_batches() -> None:
    """Time and energy of a plan grow with them, instability does not; a simulated round gives every device its own."""
    job = config.load(None, ["network.scenario=square", "network.servers=2", "network.devices=4"])
    work = measured(job)
    one, three = (
        planning_edge.problem_of(replace(job, plan=replace(job.plan, local_steps=steps)), work)
        for steps in (1, 3)
    )
    each = planning_edge.problem_of(job, work, steps=[3, 3, 3, 1])
    for name in ("layer_flops", "payload"):
        assert getattr(three, name) == pytest.approx(3 * getattr(one, name), rel=1e-15)
        assert getattr(each, name)[:3] == pytest.approx(getattr(three, name)[:3], rel=1e-15)
        assert getattr(each, name)[3] == pytest.approx(getattr(one, name)[3], rel=1e-15)
    assert (three.instability == one.instability).all()
