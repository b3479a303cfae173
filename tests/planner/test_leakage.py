"""What cuts give away as a limit of plans: the least cut of an audit, in plans of one server and of several."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sflam
from sflam import config
from sflam.config import Job
from sflam.errors import ConfigError
from sflam.planner.cell import decide
from sflam.planner.leakage import expect_given_cuts, least_cut, table_of
from sflam.records import history
from tests.conftest import Cli, assert_refused, sets

LEAKS = {0: 1.0, 1: 0.9, 2: 0.92, 4: 0.6, 5: 0.5}
"""Cut -> score at 8 bits, of a guess at 0.2; cut 2 gives away more than cut 1, as noise of an audit may have it."""
CHOOSE = ('plan.optimize=["clock", "cut"]', "network.devices=3")


def audit(folder: Path, leaks: dict[int, float] | None = None, **changed: Any) -> Path:
    """Write an audit; a width more gives 0.05 more away, noise a half."""
    cells = [
        {"cut": cut, "bits": bits, "noise": noise, "leak": min(1.0, leak + more) * (0.5 if noise else 1.0)}
        for cut, leak in (leaks or LEAKS).items()
        for bits, more in ((4, -0.05), (8, 0.0), (None, 0.05))
        for noise in (0.0, 0.3)
    ]
    findings = [{"about": "images", "guess": 0.2, "measure": "median SSIM"}]
    found = {"model": "nano-vit", "scheme": "uniform", "cells": cells, "findings": findings} | changed
    path = folder / "audit.json"
    path.write_text(json.dumps(found))
    return path


def job(path: Path, *settings: str) -> Job:
    return config.load(None, [f"plan.least_leakage={path}", *settings])


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ((), 4),  # half of the way from 0.2 to 1 is 0.6
        (("plan.most_leakage=0.95",), 1),
        (("plan.most_leakage=0.91",), 4),  # cut 1 has 0.9, but cut 2, behind it, 0.92
        (("plan.most_leakage=0.55",), 5),
        (("plan.most_leakage=1.0",), 0),
        (("plan.most_leakage=0.55", "quant.bits_up=4"), 4),
        (("plan.most_leakage=0.55", "quant.bits_up=3"), 4),  # as the next wider one that was audited
        (("plan.most_leakage=0.6", "quant.bits_up=12"), 5),  # as floats
        (("plan.most_leakage=0.6", "plan.method=bits", "plan.bits_most=16"), 5),
        (("plan.most_leakage=0.51", "privacy.noise=0.3", "privacy.clip=1.0"), 0),
        (("plan.most_leakage=0.45", "privacy.noise=0.3", "privacy.clip=1.0"), 4),
    ],
)
def test_the_least_cut(tmp_path: Path, settings: tuple[str, ...], least: int) -> None:
    assert least_cut(job(audit(tmp_path), *settings)) == least


@given(
    leaks=st.dictionaries(st.integers(0, 11), st.floats(0.2, 1.0), min_size=1),
    most=st.floats(0.05, 1.0),
)
def test_any_table_has_the_shallowest_cut_behind_which_nothing_gives_away_more(
    tmp_path_factory: pytest.TempPathFactory, leaks: dict[int, float], most: float
) -> None:
    found = job(audit(tmp_path_factory.mktemp("audit"), leaks), f"plan.most_leakage={most!r}")
    good = [cut for cut in leaks if all(leak <= most for other, leak in leaks.items() if other >= cut)]
    if good:
        assert least_cut(found) == min(good)
    else:
        with pytest.raises(ConfigError, match="no audited cut keeps every attack"):
            least_cut(found)


def test_a_plan_keeps_the_least_cut_and_shows_what_less_costs(cli: Cli, tmp_path: Path) -> None:
    path = audit(tmp_path)
    free = decide(config.load(None, CHOOSE))
    kept = decide(job(path, *CHOOSE, "plan.most_leakage=0.6"))
    assert free.plan.devices.cut.max() < 4 <= kept.plan.devices.cut.min()
    assert kept.plan.objective > free.plan.objective and not free.leakage
    assert [(each.leak, each.cut) for each in kept.leakage] == [(1.0, 0), (0.92, 1), (0.6, 4), (0.5, 5)]
    costs = [each.plan.objective for each in kept.leakage]
    assert costs == sorted(costs) and costs[0] == free.plan.objective and costs[2] == kept.plan.objective
    out = cli("plan", *sets(f"plan.least_leakage={path}", *CHOOSE), "--out", tmp_path / "plan")
    assert out.code == 0 and any("best attack" in line for line in out.out)
    written = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert [each["least_cut"] for each in written["leakage"]] == [0, 1, 4, 5]
    assert (tmp_path / "plan" / "leakage.png").is_file()


def test_users_of_several_servers_keep_it_too(tmp_path: Path) -> None:
    several = ("network.scenario=square", "network.servers=2", "network.devices=4")
    kept = decide(job(audit(tmp_path), *several))
    assert kept.plan.devices.cut.min() >= 4 and [each.cut for each in kept.leakage] == [0, 1, 4, 5]


def test_every_round_of_a_simulated_run_keeps_it(small: tuple[str, ...], tmp_path: Path) -> None:
    chosen = ("network.simulate=true", 'plan.optimize=["clock", "cut"]')
    limits = {"free": (), "kept": (f"plan.least_leakage={audit(tmp_path, {0: 1.0, 1: 0.6}, model='vit')}",)}
    least = {}
    for name, limit in limits.items():
        sflam.train(config.load(None, [*small, *chosen, *limit]), tmp_path / name)
        charges = [record.charge for record in history.read(tmp_path / name / "history.jsonl")[1]]
        least[name] = min(cut for charge in charges if charge for cut in charge.cuts)
    assert least == {"free": 0, "kept": 1}


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_given_cut_that_gives_away_more_is_refused(cli: Cli, tmp_path: Path, command: str) -> None:
    settings = sets(f"plan.least_leakage={audit(tmp_path)}")
    assert_refused(cli(command, *settings), "model.cut = 1 gives away more than plan.least_leakage allows")
    expect_given_cuts(job(tmp_path / "audit.json", "model.cut=4"))
    expect_given_cuts(job(tmp_path / "audit.json", "learn.method=fedlora"))


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"model": "other/vit"}, (), "is an audit of 'other/vit'"),
        ({"scheme": "rotated"}, (), "is an audit of 'rotated'"),
        ({"cells": []}, (), "is no audit"),
        ({"cells": [{"cut": 0, "bits": 8, "noise": 0.0, "leak": 1.5}]}, (), "scores from 0 to 1"),
        ({"findings": []}, (), "is no audit"),
        ({}, ("privacy.noise=0.1", "privacy.clip=1.0"), "no row of 8 bits or more with noise 0.1"),
        ({}, ("plan.most_leakage=0.3",), "cut 5 gives away 0.5"),
        ({}, ("plan.most_leakage=0.5", 'plan.optimize=["clock", "cut"]', "model.name=nano-vit"), ""),
    ],
)
def test_bad_audits_are_refused_in_one_line(
    tmp_path: Path, changed: dict[str, Any], settings: tuple[str, ...], message: str
) -> None:
    found = job(audit(tmp_path, **changed), *settings)
    if not message:
        assert least_cut(found) == 5
        return
    with pytest.raises(ConfigError, match=message):
        least_cut(found)


def test_what_is_no_file_and_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        least_cut(job(tmp_path / "none.json"))
    (tmp_path / "audit.json").write_text("[1")
    with pytest.raises(ConfigError, match="is no audit"):
        least_cut(job(tmp_path / "audit.json"))


def test_an_audit_that_changed_is_read_again(tmp_path: Path) -> None:
    wish = job(audit(tmp_path))
    assert least_cut(wish) == 4
    audit(tmp_path, {0: 1.0, 3: 0.3})
    assert least_cut(wish) == 3 and len(table_of(wish).rows) == 12
    assert least_cut(replace(wish, plan=replace(wish.plan, least_leakage=""))) == 0
