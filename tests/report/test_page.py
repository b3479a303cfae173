"""The page of a run or a comparison: whole in itself, escaped, repeatable, and shown by a real browser."""

from __future__ import annotations

import html
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import Cli, assert_refused, cut_short, written
from tests.report import browser
from tests.report.charges import charge
from tests.report.page_checks import COMPARISON, EVIL, ODD, RUN, expect_whole, places, render_some
from tests.simulate.builders import SIMULATED, ran

from sflam import config
from sflam.compare.comparison import compare
from sflam.errors import RunError
from sflam.plan import ALL_LOCAL
from sflam.records.charge import Charge
from sflam.records.history import RoundRecord, record_to_dict
from sflam.records.saved import SAVED
from sflam.report.charts.timeline import draw_timeline, spans
from sflam.report.pages.inline import inline
from sflam.report.pages.rounds import allocation, phase_table
from sflam.report.pages.written import write_page
from sflam.run import start as jobs


@pytest.fixture(scope="module")
def simulated(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    battery = ("network.battery_j=1", "network.downlink_mbps=50", "fleet.selected=2")
    ran(small, folder, "learn.rounds=3", *battery).finish()
    return folder


@pytest.fixture(scope="module")
def compared(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "several"
    wanted = config.load(None, [*small, *SIMULATED])
    names = ("sflam", "sflam+equal", "sl", "central")
    compare(wanted, folder, names, sweeps={"bits": (4, 8), "weight": (0.5, 0.9)}).save(folder)
    return folder


def test_a_run_is_one_whole_page(cli: Cli, simulated: Path) -> None:
    done = cli("report", simulated)
    assert (done.code, done.out, done.err) == (0, [], [f"wrote {simulated / 'report.html'}"])
    text = (simulated / "report.html").read_text()
    found = expect_whole(text, RUN)
    output = " ".join(found.words)
    assert len(re.findall(r"device \d: (?:computing|sending|adapters)", text)) >= 2 * 3
    assert "left out" not in output and "battery" not in output.partition("Energy")[0]
    assert "Left in the batteries" in output and "MHz in all" in output and "torch" in output
    with pytest.raises(StopIteration):
        next(nan for nan in re.finditer(r"\bnan\b|\binf\b", text))


def test_the_command_on_the_page_makes_the_same_job(simulated: Path, compared: Path) -> None:
    for folder, name in ((simulated, "simulate"), (compared, "compare")):
        text = write_page(folder, folder / "report.html").read_text()
        code = re.search(r"<code>(.*?)</code>", text, re.DOTALL)
        assert code is not None
        words = shlex.split(html.unescape(code[1]).replace("\\\n", " "))
        assert words[:2] == ["sflam", name]
        output = [value for option, value in itertools.pairwise(words) if option == "--set"]
        job = config.load(None, ["network.simulate=true", *output])
        run = next(folder.glob("sflam-*")) if name == "compare" else folder
        if name == "simulate":
            assert job == config.load(run / "config.toml")
        else:
            kept = json.loads((folder / SAVED).read_text())["set"]
            assert config.overrides(job) == kept
            assert words[words.index("--bits") + 1] == "4,8" and "--target" not in words


def test_what_was_measured_stands_beside_what_was_modelled(simulated: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated, tmp_path / "run")
    path = tmp_path / "run" / "history.jsonl"
    *before, last = path.read_text().splitlines()
    values = json.loads(last)
    numbers = {"device_s": 0.002, "server_s": 0.001, "up_bits": 8000, "s": 3.0, "j": 4.0}
    measured = {key: value for key, value in numbers.items() if len(key) > 1}
    values["charge"]["calibration"] = measured | {f"modelled_{key}": value for key, value in numbers.items()}
    values["charge"]["sensitivity"] = [0.25, 0.5]
    path.write_text("\n".join([*before, json.dumps(values)]) + "\n")
    text = write_page(tmp_path / "run", tmp_path / "page.html").read_text()
    for words in (
        "Measured beside modelled, round 3",
        "1.00 kB",
        "Slowdown by quantization",
        "device 0: 0.25 chi",
    ):
        assert words in text, words


def test_a_page_says_who_was_at_which_server() -> None:
    record = placed(charge(0), (0, ALL_LOCAL), (1, 6))
    given = allocation(record)
    assert given is not None and given["words"].endswith(" Devices at no server: 1; at server 0: 0.")
    assert any("Blocks on the device" in chart for chart in given["charts"])
    numbers = phase_table(record)
    assert numbers.head[1:3] == ["server", "blocks"] and [row[1] for row in numbers.rows] == ["0", "none"]
    assert "server" not in phase_table(placed(charge(0), (), (1, 1))).head


def placed(cost: Charge, servers: tuple[int, ...], cuts: tuple[int, ...]) -> RoundRecord:
    """Return a record of two devices with shares, and where they are."""
    shares = dict.fromkeys(("bandwidth", "power", "speed"), (1e6, 2e6))
    phases = dict.fromkeys(("begin", "compute_s", "up_s", "server_s", "down_s", "adapter_s"), (0.1, 0.2))
    return RoundRecord(
        round=0,
        loss=1.0,
        participants=(0, 1),
        charge=replace(cost, servers=servers, cuts=cuts, **shares, **phases),
    )


def test_a_plain_run_has_no_network_to_show(finished: Path, tmp_path: Path) -> None:
    text = write_page(finished, tmp_path / "plain.html").read_text()
    expect_whole(text, RUN - {"timeline", "allocation", "energy", "plan"})
    assert "sflam train" in text
    assert "training samples" in text and "Training loss of each device, last round" in text
    assert "Test accuracy on each device" in text
    (finished_without := tmp_path / "older").mkdir()
    for path in finished.iterdir():
        if path.name not in ("partition.json", "partition.png") and path.is_file():
            (finished_without / path.name).write_bytes(path.read_bytes())
    older = write_page(finished_without, tmp_path / "older.html").read_text()
    assert "training samples" not in older


def test_a_comparison_is_one_whole_page(compared: Path, tmp_path: Path) -> None:
    found = expect_whole(write_page(compared, tmp_path / "page.html").read_text(), COMPARISON)
    output = " ".join(found.words)
    for word in ("sflam+equal", "central", "Time against energy", "Accuracy by bits", "95 % of what"):
        assert word in output, word


def test_a_history_from_before_the_phases_still_has_its_page(simulated: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated, tmp_path / "old")
    path = tmp_path / "old" / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[1:]:
        for name in (
            "begin",
            "compute_s",
            "up_s",
            "server_s",
            "down_s",
            "adapter_s",
            "bandwidth",
            "power",
            "speed",
        ):
            del line["charge"][name]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_page(tmp_path / "old", tmp_path / "old.html").read_text()
    assert text.count("run it again to see them") == 2


def test_what_files_say_is_never_markup(simulated: Path, compared: Path, tmp_path: Path) -> None:
    evil = tmp_path / "<i>evil"
    shutil.copytree(simulated, evil)
    toml = (evil / "config.toml").read_text()
    toml = re.sub(r'(?m)^name = ".*digits.npz"$', f"name = {config.toml_value(EVIL)}", toml)
    toml = re.sub(r"(?m)^label = .*$", f"label = {config.toml_value(EVIL)}", toml)
    (evil / "config.toml").write_text(toml)
    header, *rounds = (evil / "history.jsonl").read_text().splitlines()
    values = json.loads(header)
    values["versions"][EVIL] = EVIL
    last = json.loads(rounds[-1])
    last["charge"]["method"] = EVIL
    lines = [values, *map(json.loads, rounds[:-1]), last]
    (evil / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = json.loads((evil / "result.json").read_text())
    result["classes"] = [EVIL] * len(result["classes"])
    result["accuracy"] = result["device_memory"] = EVIL
    (evil / "result.json").write_text(json.dumps(result))
    text = write_page(evil, tmp_path / "evil.html").read_text()
    found = expect_whole(text, RUN)
    assert not re.search("<(script|img|i)[ >]", text)
    assert any(EVIL in words for words in found.words)

    several = tmp_path / "several"
    shutil.copytree(compared, several)
    output = json.loads((several / SAVED).read_text())
    for book in (output["methods"], output["run_names"], output["sweeps"]["weight"]):
        book[EVIL] = book.pop("sl")
    output["target"]["rule"] = output["labels"]["bits"] = EVIL
    output["set"].append(f"data.name={EVIL}")
    (several / SAVED).write_text(json.dumps(output))
    expect_whole(write_page(several, tmp_path / "several.html").read_text(), COMPARISON)
    for name in ("accuracy", "virtual_s"):
        wrong = json.loads((several / SAVED).read_text())
        wrong["methods"]["central"][name] = EVIL
        (tmp_path / name).mkdir()
        (tmp_path / name / SAVED).write_text(json.dumps(wrong))
        with pytest.raises(RunError, match=f"is damaged \\({name} is "):
            write_page(tmp_path / name, tmp_path / "wrong.html")


def some_of_a_kind(ways: list[tuple[str | int, ...]], most: int = 2) -> list[tuple[str | int, ...]]:
    """Return a few of the places that have first and last word and depth in common."""
    kinds: dict[tuple[str, ...], list[tuple[str | int, ...]]] = {}
    for way in ways:
        words = [key for key in way if isinstance(key, str)]
        kinds.setdefault((words[0], words[-1], str(len(way))), []).append(way)
    return [way for same in kinds.values() for way in same[:most]]


def test_whatever_a_file_holds_there_is_a_page_or_one_line(
    simulated: Path, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key of the last round, the result and the comparison, its value replaced by odd ones in turn."""
    render_some(monkeypatch)
    several, single = tmp_path / "several", tmp_path / "single"
    shutil.copytree(compared, several)
    shutil.copytree(simulated, single)
    done = {RunError: 0, None: 0}
    for path in (single / "result.json", single / "history.jsonl", several / SAVED):
        whole = path.read_text()
        *before, last = whole.splitlines(keepends=True) if path.suffix == ".jsonl" else [whole]
        ways = some_of_a_kind([way for way in places(json.loads(last)) if way[0] != "config"])
        for number, way in enumerate(ways):
            values = json.loads(last)
            holder = values
            for key in way[:-1]:
                holder = holder[key]
            holder[way[-1]] = ODD[number % len(ODD)] if path.name == SAVED else ODD[(7 * number) % len(ODD)]
            path.write_text("".join(before) + json.dumps(values) + "\n")
            try:
                text = write_page(path.parent, tmp_path / "odd.html").read_text()
                assert not re.search("<(script|img)", text), way
                done[None] += 1
            except RunError as error:
                assert "\n" not in str(error)
                done[RunError] += 1
        path.write_text(whole)
    assert min(done.values()) > 20, done


def test_a_run_that_has_not_finished_has_a_page_of_its_rounds(small: tuple[str, ...], tmp_path: Path) -> None:
    run = jobs.start(config.load(None, [*small, *SIMULATED, "learn.rounds=2"]), tmp_path / "run")
    next(rounds := run.rounds())
    text = write_page(tmp_path / "run", tmp_path / "page.html").read_text()
    expect_whole(text, RUN)
    assert "Not finished: 1 of 2 rounds are done." in text
    for _ in rounds:
        run.save()
    run.finish()
    assert "Not finished" not in write_page(tmp_path / "run", tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), r"holds neither a run \(config.toml\) nor a finished comparison"),
        (lambda run: (run / "config.toml").unlink(), "holds neither a run"),
        (written("result.json", "{"), "holds no finished run .* finish it with"),
        (written("history.jsonl", b"\xff\n"), "line 1 is damaged"),
        (cut_short("history.jsonl", 0.0), "has no header line"),
        (lambda run: (run / "history.jsonl").unlink(), "cannot be read"),
        (written("config.toml", "[learn\n"), "not valid TOML"),
        (written(SAVED, "{"), "comparison.json is damaged"),
        (written(SAVED, '{"run_names": {"a": ["../b"]}, "methods": {"a": 1}, "sweeps": {}}'), "is damaged"),
        (
            written(SAVED, '{"run_names": {}, "methods": {}, "sweeps": {}, "target": {"accuracy": 1}}'),
            "is damaged",
        ),
        (lambda run: (run / "report.html").mkdir(), "cannot be written"),
    ],
)
def test_a_folder_that_has_no_page_is_one_line(cli: Cli, run: Path, damage, message: str) -> None:
    damage(run)
    assert_refused(cli("report", run), message)


def test_one_name_is_for_one_page(cli: Cli, run: Path) -> None:
    assert_refused(
        cli("report", run, run, "--out", "x.html"), "--out names one page, but 2 folders are given"
    )


def test_a_timeline_has_no_gaps_and_ends_with_the_round() -> None:
    two = (0.25, 0.75)
    phases = {
        "begin": (0.0, 0.0),
        "compute_s": two,
        "up_s": two,
        "server_s": (0.5, 0.2),
        "down_s": (0.5, 0.2),
    }
    cost = replace(charge(0), **phases, adapter_s=(0.1, 0.05))  # type: ignore[arg-type]
    assert cost.finish == (1.5, 1.9)
    for place in (0, 1):
        found = spans(cost, place)
        assert found[0].start == 0 and found[-1].end == cost.seconds
        assert all(a.end == b.start for a, b in itertools.pairwise(found))
    order = ["compute", "up", "server", "down", "waiting", "adapters"]
    assert [span.phase for span in spans(cost, 0)] == order
    assert [span.phase for span in spans(cost, 1)] == [*order[:4], "adapters", "waiting"]
    drawn = inline(draw_timeline(cost, (3, 8)))
    assert drawn.count("device 3: ") == 6 and "device 8: waiting 50 ms" in drawn
    relay = replace(cost, begin=(0.0, 1.55), finish=(1.5, 3.45), seconds=3.5)
    assert [span.phase for span in spans(relay, 1)] == [
        "waiting",
        "compute",
        "up",
        "server",
        "down",
        "adapters",
    ]


@pytest.fixture
def pages(simulated: Path, compared: Path, tmp_path: Path) -> Iterator[list[tuple[Path, set[str]]]]:
    run = write_page(simulated, tmp_path / "run.html")
    yield [(run, RUN), (write_page(compared, tmp_path / "several.html"), COMPARISON)]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_shows_it_without_a_murmur(
    pages: list[tuple[Path, set[str]]], width: int, scheme: str
) -> None:
    if browser.found() is None:
        pytest.skip(f"no Chromium here: none of {', '.join(browser.NAMES)} is on the path")
    with browser.Browser(width=width, scheme=scheme) as shown:
        for page, sections in pages:
            shown.requests.clear()
            shown.open(page)
            ids = shown.value("JSON.stringify([...document.querySelectorAll('section')].map(one => one.id))")
            assert set(json.loads(ids)) == sections
            tall = "[...document.querySelectorAll('section')].every(one => one.getBoundingClientRect().height > 60)"
            assert shown.value(tall) is True
            assert (
                shown.value("document.documentElement.scrollWidth") <= width
            )  # tables scroll, the page does not
            assert shown.value("document.querySelectorAll('svg.chart').length") >= 8
            assert shown.value("getComputedStyle(document.body).backgroundColor") == (
                "rgb(251, 251, 250)" if scheme == "light" else "rgb(20, 24, 28)"
            )
            assert shown.requests == [page.resolve().as_uri()] and shown.complaints == []


def test_a_browser_s_complaints_and_requests_are_heard(tmp_path: Path) -> None:
    """The test above would see one."""
    if browser.found() is None:
        pytest.skip(f"no Chromium here: none of {', '.join(browser.NAMES)} is on the path")
    page = tmp_path / "bad.html"
    page.write_text("<img src='missing.png'><script>console.log('hello'); nothing()</script>")
    with browser.Browser() as shown:
        shown.open(page)
        assert len(shown.requests) == 2 and len(shown.complaints) >= 2


def test_a_record_and_its_page_agree(simulated: Path) -> None:
    """A number of the timeline's table is the history's."""
    run = jobs.resume(simulated)
    last = record_to_dict(run.records[-1])
    text = write_page(simulated, simulated / "report.html").read_text()
    longest = max(last["charge"]["finish"])
    assert f"device {last['participants'][last['charge']['finish'].index(longest)]}" in text
