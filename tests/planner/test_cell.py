"""``sflam plan``: from a network file to a plan, and every bad input reported in one line with exit code 2."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sflam import config
from sflam.allocate.cell import cuts as one_cut
from sflam.allocate.cell.cut_options import CutOptions
from sflam.planner.cell import decide, problem_of, workload_of
from tests.conftest import Cli, assert_refused, sets

EXAMPLE = Path(__file__).parents[2] / "examples" / "network.toml"
REF = ("--scenario", "refA")


def planned(cli: Cli, *arguments: object) -> dict[str, Any]:
    output = cli("plan", *arguments, "--json")
    assert output.code == 0, output.err
    (line,) = output.out
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_reference_cell_gives_the_published_optimum(cli: Cli) -> None:
    found = planned(cli, *REF)
    assert found["objective"] == pytest.approx(1.809162276, rel=1e-8)
    assert (found["latency_s"], found["energy_j"]) == pytest.approx((2.8041, 0.8142), abs=5e-5)
    assert found["status"] == "optimal" and 0 <= found["gap"] < 1e-9 and found["solve_s"] < 10
    assert found["lower_bound"] <= found["objective"] and found["method"] == "optimal"
    assert len(found["devices"]) == 20 and found["devices"][3]["name"] == "device-3"
    assert sum(one["bandwidth"] for one in found["devices"]) <= 20e6 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("options", "objective"),
    [
        (("--devices", 50, "--seed", 3), 4.380501332),
        (("--seed", 2, "--latency-weight", 0.9), 2.049813111),
        (("--seed", 1, "--latency-weight", 0.1), 0.602748892),
        (("--optimize", ""), 1.708605234),
    ],
)
def test_options_are_settings(cli: Cli, options: tuple[object, ...], objective: float) -> None:
    assert planned(cli, *REF, *options)["objective"] == pytest.approx(objective, rel=1e-8)


@pytest.mark.usefixtures("rendered")
def test_the_example_is_planned_and_written(cli: Cli, tmp_path: Path) -> None:
    found = planned(cli, EXAMPLE, "--compare", "--pareto", 4, "--out", tmp_path / "plan")
    assert found["status"] == "optimal" and found["model"] == "google/vit-base-patch16-224"
    assert found["job"] == config.digest(config.load(EXAMPLE))
    names = [one["name"] for one in found["devices"]]
    assert names[:2] == ["lab", "gateway"] and len(names) == 17
    ratios = {one["method"]: one["ratio"] for one in found["compare"]}
    assert ratios.pop("optimal") == 1.0 and all(ratio >= 1 - 1e-9 for ratio in ratios.values())
    front = [(one["latency_s"], one["energy_j"]) for one in found["pareto"]]
    assert len(front) == 4 and front == sorted(front) and front[0][1] > front[-1][1]
    written = {path.name for path in (tmp_path / "plan").iterdir()}
    assert written == {"plan.json", "plan.csv", "allocation.png", "pareto.png"}
    assert all(path.stat().st_size > 5_000 for path in (tmp_path / "plan").glob("*.png"))
    assert json.loads((tmp_path / "plan" / "plan.json").read_text()) == found
    with (tmp_path / "plan" / "plan.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert [float(row["power"]) for row in rows] == [one["power"] for one in found["devices"]]


def test_the_table_is_the_result_without_json(cli: Cli) -> None:
    output = cli("plan", *REF, "--compare", "--pareto", 3)
    text = "\n".join(output.out)
    assert output.code == 0 and output.err == []
    assert "vit-b16 on 20 devices" in text and "certified gap" in text and "least energy" in text
    assert "…" not in text


def test_the_server_s_turn_and_the_way_down_are_counted() -> None:
    near = problem_of(config.load(EXAMPLE))
    assert near.base_s == pytest.approx(17 * 16 * 11 * (2.918e9 + 3.047e9) / (2560 * 1.59e9), rel=1e-3)
    assert near.base_j == 0
    # 60 W at 1.59 GHz: a slower clock is cheaper at this weight, and what is drawn falls with its cube.
    paid = problem_of(config.load(EXAMPLE, [f"network.server_kappa={60 / 1.59e9**3}"]))
    slower = near.base_s / paid.base_s
    assert paid.base_j == pytest.approx(60 * slower**3 * paid.base_s) and slower == pytest.approx(
        (paid.time_weight / 60) ** (1 / 3)  # a second costs what all devices draw in it, too
    )
    work = near.workload
    bodies = 8 * 592 + work.adapter_bits(1) + 8 * 592  # the gradient's, and the adapters'
    assert near.each("delay") == pytest.approx([(work.down_bits(1, 8) + bodies) / 100e6] * 17)
    published = problem_of(config.load(EXAMPLE, ["plan.counts=activations"]))
    assert published.each("delay") == pytest.approx([work.down_bits(1, 8) / 100e6] * 17)
    assert published.payload[0] < near.payload[0]
    alone = problem_of(config.load(None, ["network.scenario=refA"]))
    assert alone.base_s == 0 and not alone.each("delay").any()


def test_the_best_cut_is_found_and_memory_rules_cuts_out(cli: Cli) -> None:
    settings = ("--optimize", "clock,cut", "--set", "network.server_flops_per_cycle=10")
    found = planned(cli, *settings, "--devices", 3)
    assert {one["cut"] for one in found["devices"]} == {5}  # as deep as it goes: the server is hardly there
    costs = workload_of(config.load(None)).device_memory
    room = f"network.memory_gb={(costs[2] + 1) / 1e9}"
    assert {one["cut"] for one in planned(cli, *settings, "--devices", 3, "--set", room)["devices"]} == {2}


def test_the_best_cut_of_the_reference_cell(cli: Cli) -> None:
    """Its server has 100 TFLOP/s, which it shares among all: the embedding alone stays on the devices."""
    found = planned(cli, *REF, "--optimize", "clock,cut")
    assert found["objective"] == pytest.approx(1.731, abs=5e-4)
    assert {one["cut"] for one in found["devices"]} == {0}


def test_devices_that_differ_get_cuts_of_their_own(cli: Cli) -> None:
    kinds = 'network.profiles={"raspberry-pi-5" = 2, "jetson-orin-nano" = 1}'
    floats = "quant.bits_adapters=32"  # in few bits adapters cost so little that all devices keep all blocks
    slow = sets(kinds, "network.server_flops_per_cycle=40", "plan.latency_weight=0.9", floats)
    found = planned(cli, "--optimize", "clock,cut", *slow, "--compare")
    assert len({one["cut"] for one in found["devices"]}) > 1
    assert found["lower_bound"] <= found["objective"] and found["shadow_prices"]["bandwidth_per_hz"] > 0
    common = [planned(cli, *slow, "--set", f"model.cut={cut}") for cut in range(6)]
    assert found["objective"] < min(each["objective"] for each in common)
    assert all(each["ratio"] >= 1 for each in found["compare"])


@pytest.mark.parametrize(("method", "times"), [("sflam", 2.0), ("sfl-v2", 1.0)])
def test_a_servers_turn_is_that_of_its_own_halves(method: str, times: float) -> None:
    """A shared trunk is one for all, whatever ranks and tuned blocks devices have."""
    job = config.load(None, [f"learn.method={method}", "network.devices=3"])
    work = workload_of(job)
    doubled = {
        name: tuple(2 * flop for flop in getattr(work, name))
        for name in ("server_forward", "server_backward")
    }
    own, cut = (replace(work, **doubled),) * 3, np.array([1, 2, 3])
    plain, other = (problem_of(job, workload=work, cut=cut, own=each) for each in ((), own))
    assert other.base_s == pytest.approx(times * plain.base_s)
    free = problem_of(job, workload=work, own=own, server=False)
    options = CutOptions(free, np.arange(6), lambda here: here)
    assert options.at(cut).base_s == pytest.approx(other.base_s) and options.at(cut).base_j == pytest.approx(
        other.base_j
    )
    assert one_cut.look(free, cut).latency == pytest.approx(
        one_cut.look(other.change(base_s=0.0), cut).latency
    )


@pytest.mark.parametrize(("fleet", "model"), [("tuned", "tuned"), ("ranks", "rank")])
def test_devices_with_adapters_of_their_own_are_planned_as_they_are(cli: Cli, fleet: str, model: str) -> None:
    """Each as in a network where all are like it."""
    common = ["network.devices=3", "fleet.devices=3", "model.cut=4"]
    mixed = problem_of(config.load(None, [*common, f"fleet.{fleet}=[1,3,3]"]))
    alike = [problem_of(config.load(None, [*common, f"model.{model}={value}"])) for value in (1, 3)]
    for device, one in enumerate((alike[0], alike[1], alike[1])):
        assert mixed.cycles[device] == pytest.approx(one.cycles[device], rel=1e-12)
        assert mixed.payload[device] == pytest.approx(one.payload[device], rel=1e-12)
        assert mixed.each("delay")[device] == pytest.approx(one.each("delay")[device], rel=1e-12)
    assert mixed.payload[0] < mixed.payload[1] and mixed.cycles[0] < mixed.cycles[1]
    found = planned(cli, *sets(*common, f"fleet.{fleet}=[1,3,3]"))
    assert len(found["devices"]) == 3
    wrong = cli("plan", *sets("network.devices=4", "fleet.devices=3", f"fleet.{fleet}=[1,3,3]"))
    assert_refused(wrong, f"fleet.{fleet} has 3 values, and the network 4 devices; give one value for each")


def test_nothing_comes_down_to_a_frozen_embedding() -> None:
    slow = ["network.downlink_mbps=0.1", "network.devices=3", 'plan.optimize=["clock", "cut"]']
    plan = decide(config.load(None, slow)).plan
    assert plan.devices.cut.tolist() == [0, 0, 0] and plan.latency < 1 < 16 * 17 * (96 * 8 + 32) / 0.1e6


def test_bits_and_subchannels_are_chosen_and_compared(cli: Cli) -> None:
    sensitive = ("--set", "plan.sensitivity=1", "--devices", 4)
    found = planned(cli, *REF, *sensitive, "--optimize", "clock,bits", "--compare")
    ratios = {one["method"]: one["ratio"] for one in found["compare"]}
    assert found["method"] == "bits" and {one["bits"] for one in found["devices"]} <= {3, 4, 5}
    assert ratios["bits"] == 1 < ratios["optimal"] and ratios["fixed-bits"] >= 1
    counted = planned(cli, *REF, "--devices", 4, "--subchannels", 12, "--compare")
    assert counted["method"] == "subchannels" and sum(one["subchannels"] for one in counted["devices"]) == 12
    assert {one["method"] for one in counted["compare"]} >= {"subchannels", "bcd-matching", "optimal", "bcd"}


def test_bits_without_a_sensitivity_are_remarked(cli: Cli) -> None:
    output = cli("plan", *REF, "--devices", 2, "--optimize", "bits")
    assert output.code == 0 and output.err[0].startswith("note: plan.sensitivity is 0")
    output = cli("plan", *REF, "--devices", 2, "--optimize", "bits", "--subchannels", 4, "--method", "equal")
    assert output.code == 0 and output.err == [
        "note: method equal does not choose bits; they stay as they are, 8 up"
    ]


def test_bits_and_subchannels_are_chosen_together(cli: Cli) -> None:
    both = ("--set", "plan.sensitivity=1", "--devices", 4, "--optimize", "clock,bits", "--subchannels", 12)
    found = planned(cli, *REF, *both, "--compare")
    assert found["method"] == "subchannel-bits" and sum(one["subchannels"] for one in found["devices"]) == 12
    ratios = {one["method"]: one["ratio"] for one in found["compare"]}
    assert ratios["subchannel-bits"] == 1 <= ratios["bcd-bits"] and ratios["subchannels"] > 1
    assert 0 <= found["gap"] < 0.2 and found["lower_bound"] > 0
    assert planned(cli, *REF, *both, "--method", "bcd")["method"] == "bcd-bits"


def test_texts_have_the_tokens_that_are_asked_for(cli: Cli) -> None:
    short, long = (
        planned(cli, "--devices", 2, "--set", "model.name=gpt2", "--set", f"plan.tokens={tokens}")
        for tokens in (64, 512)
    )
    assert short["latency_s"] < long["latency_s"] / 6  # adapters are as large for both
    output = cli("plan", "--set", "model.name=gpt2", "--set", "plan.tokens=5000")
    assert_refused(output, "1024 positions, asked for 5000")
    assert (
        cli("plan", *REF, "--set", "quant.scheme=identity")
        .err[0]
        .startswith("note: quant.scheme is identity")
    )


def test_a_trace_is_planned_round_by_round(cli: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("device,time,gain_db\na,0,-90\nb,0,-100\na,1,-100\nb,1,-90\n")
    first, second = (planned(cli, "--trace", trace, "--round", number) for number in (0, 1))
    assert [one["name"] for one in first["devices"]] == ["a", "b"]
    assert first["devices"][1]["power"] > first["devices"][0]["power"]
    assert second["devices"][1]["power"] < second["devices"][0]["power"]


def test_no_plan_is_exit_code_one_and_says_what_to_change(cli: Cli) -> None:
    output = cli("plan", *REF, "--set", "plan.deadline=0.5")
    assert output.code == 1 and "no plan holds the limits" in output.out[0]
    output = cli("plan", *REF, "--set", "plan.deadline=0.5", "--json")
    found = json.loads(output.out[-1])
    assert output.code == 1 and found["status"] == "infeasible" and found["devices"] == []


def test_a_broken_trace_is_one_line(cli: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    for rows, sentence in (
        ("a,0,nan\n", "gain_db is 'nan'; it must be a finite number"),
        ("a,0,-90,1\n", "row 1 has 4 values"),
    ):
        trace.write_text("device,time,gain_db\n" + rows)
        assert_refused(cli("plan", "--trace", trace), sentence)


def test_labels_at_home_are_two_exchanges(cli: Cli) -> None:
    """Twice the bits up and down, and the head's work on the device: the same devices need longer, and more energy."""
    words = ("plan", "--json", "--set", "network.downlink_mbps=20", "--set", "plan.local_steps=5")
    far, home = (
        json.loads(cli(*words, "--set", f"model.labels={where}").out[0]) for where in ("server", "device")
    )
    assert home["latency_s"] > far["latency_s"] and home["energy_j"] > far["energy_j"]
    assert home["gap"] < 1e-9
    assert_refused(cli("plan", "--scenario", "refA", "--set", "model.labels=device"), "reference cell")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--devices", 0), r"network\.devices is 0; it must be at least 1"),
        (("--method", "optimol"), r"plan\.method is 'optimol'; choose one of optimal"),
        (("--method", "bcd-matching"), r"set plan\.subchannels, at least one per device"),
        (("--scenario", "refB2"), "unknown scenario"),
        (("--latency-weight", 3), r"plan\.latency_weight is 3"),
        (("--latency-weight", "nan"), "latency_weight is nan"),
        (("--optimize", "bit"), r"plan\.optimize holds 'bit'; choose from clock, bits, cut"),
        (("--subchannels", -1), "subchannels is -1"),
        (("--pareto", -1), "--pareto is -1"),
        (("--pareto", 1), "give 2 points or more"),
        (("--subchannels", 3), "3 subchannels for 20 devices"),
        (("--round", -1), "a round from 0 on"),
        (("--set", "network.bandwidth_mhz=-20"), "must be positive"),
        (("--set", "network.bandwidth=20"), "did you mean 'bandwidth_mhz'"),
        (("--set", "network.max_power_dbm=200"), "between -60 and 60"),
        (("--set", "model.name=bert-base-uncase"), "did you mean 'bert-base-uncased'"),
        (("--set", "model.cut=7"), "cut"),
        (("--set", "network.path_loss_db=1e9"), "channel gain"),
        (("--trace", "nowhere.csv"), "No such file"),
        (("nowhere.toml",), "No such file"),
        (("--out", "/dev/null/x"), "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    cli: Cli, arguments: tuple[object, ...], sentence: str
) -> None:
    output = cli("plan", *arguments)
    if arguments[0] == "--out":
        assert output.code == 2 and output.err[-1].startswith("sflam: ") and sentence in output.err[-1]
    else:
        assert_refused(output, sentence)


def test_planning_loads_neither_torch_nor_matplotlib() -> None:
    code = """
import sys
from sflam.cli import main
sys.argv = ["sflam", "plan", "--scenario", "refA", "--json"]
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "transformers", "peft", "matplotlib", "pandas", "sklearn"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


CHOICES = ["network.devices=3", 'plan.optimize=["clock", "bits", "cut"]', "plan.sensitivity=0.1"]


@pytest.mark.parametrize(
    ("file", "settings"),
    [(EXAMPLE, ["plan.latency_weight=0.05"]), (EXAMPLE, ["plan.latency_weight=0.9"]), (None, CHOICES)],
)
def test_the_optimum_lies_on_the_front_and_nothing_below_it(file: Path | None, settings: list[str]) -> None:
    found = decide(config.load(file, settings), compare=file is not None, points=16)
    assert (found.plan.gap < 1e-2) == (file is not None)  # cuts and bits together have no bound
    assert len(found.front) == 16
    times, energies = zip(*found.front, strict=True)
    slopes = np.diff(energies) / np.diff(times)
    assert np.all(np.diff(slopes) > -1e-6) and np.all(slopes <= 0)
    for one, joules in zip((found.plan, *found.others), found.weighted, strict=True):
        if times[0] < one.latency < times[-1]:
            # Chords of a convex front lie above it: a plan on it may lie below its chord, by very little here.
            assert joules >= np.interp(one.latency, times, energies) * (1 - 1e-2), one.method
    assert np.interp(found.plan.latency, times, energies) == pytest.approx(found.weighted[0], rel=1e-6)


def test_the_readme_s_network_file_is_planned(tmp_path: Path) -> None:
    text = (EXAMPLE.parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = [part for part in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[network]" in part]
    (tmp_path / "network.toml").write_text(block)
    found = decide(config.load(tmp_path / "network.toml"))
    assert found.plan.gap < 1e-9 and found.names[0] == "lab" and len(found.names) == 16


def test_the_plan_adds_up() -> None:
    """Times and energies computed by hand, from the plan of every device, add up to the plan's."""
    job = config.load(EXAMPLE)
    plan, problem = decide(job).plan, problem_of(job)
    network, work, planned = problem.network, problem.workload, plan.devices
    flop = np.add(work.device_forward, work.device_backward)[planned.cut]
    compute = flop / network.flops_per_cycle / planned.clock
    efficiency = np.log2(1 + planned.power * network.gain[0] / (network.noise * planned.bandwidth))
    header, labels = 8 * 592, 32 * work.batch
    beside = header + np.array([work.adapter_bits(int(cut)) + header for cut in planned.cut])
    changed = header + np.array([work.trained_bits(int(cut)) + header for cut in planned.cut])
    up = np.array([work.up_bits(int(bits)) for bits in planned.bits]) + labels + changed
    assert planned.payload_bits == pytest.approx(up)
    assert planned.rate_up == pytest.approx(planned.bandwidth * efficiency)
    up = up / (planned.bandwidth * efficiency)
    pairs = zip(planned.cut, planned.bits_down, strict=True)
    down = (np.array([work.down_bits(int(cut), int(bits)) for cut, bits in pairs]) + beside) / 100e6
    assert compute == pytest.approx(planned.compute_s) and up == pytest.approx(planned.transmit_s)
    assert problem.base_s + (compute + up + down).max() == pytest.approx(plan.latency)
    computing = compute * network.kappa * planned.clock**3
    idle = network.static_power * plan.latency
    assert planned.power * up == pytest.approx(planned.transmit_j) and computing == pytest.approx(
        planned.compute_j
    )
    assert idle == pytest.approx(planned.idle_j) and idle.max() > 0
    assert (planned.power * up + computing + idle).sum() == pytest.approx(plan.energy)


def test_the_same_from_python() -> None:
    job = config.load(None, ["network.scenario=refA"])
    assert decide(job).plan.objective == pytest.approx(1.809162276, rel=1e-8)
