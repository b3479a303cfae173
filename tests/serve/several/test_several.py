"""What befalls one of several jobs is its own: it ends or fails, is stopped, is gone on with; nothing is half-made."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sflam.errors import ConfigError, Refused, RunError
from sflam.records.run_folder import RunFolder
from sflam.serve.serve import Serving
from sflam.serve.several import several
from sflam.serve.web_server import Listen
from tests.serve.several.both import Both, job_of
from tests.serve.several.test_front import asked
from tests.serve.test_operation import soon

pytestmark = pytest.mark.usefixtures("one_thread")


def greeted(both, name, devices=2):
    """Let devices come that do nothing."""
    for device in range(devices):
        link = both.link(name, both.token(name, device))
        link.json("POST", "/v1/session", {"samples": 40})
        link.close()


def test_a_job_that_fails_leaves_the_others(tmp_path):
    both = Both(tmp_path, {"good": job_of(), "bad": job_of("seed=3")})
    good, bad = both.served.jobs.values()
    bad.served.fleet.pace.deadline = lambda opening: 0.3
    for device in (0, 1):
        both.token("good", device)
    with both, ThreadPoolExecutor(2) as pool:
        greeted(both, "bad")
        soon(lambda: bad.state == "failed", 60)
        assert good.state == ""
        wanted = "round 1, attempt 2: 0 of at least 2 devices delivered within 0.3 s"
        assert wanted in bad.error and "twice in a row" in bad.error
        for path in ("/", "/jobs/bad/"):
            body = asked(both, path)[2]
            assert "twice in a row" in body and '<span class="phase failed">failed</span>' in body
        assert json.loads(asked(both, "/healthz")[2]) == {
            "ok": True,
            "jobs": {"good": "waiting", "bad": "failed"},
        }
        text = asked(both, "/metrics")[2]
        assert 'sflam_job_failed{job="bad"} 1' in text and 'sflam_job_failed{job="good"} 0' in text
        joined = [pool.submit(both.device, "good", device) for device in (0, 1)]
        assert [one.result(120) for one in joined] == [2, 2]
        both.thread.join(60)
    assert [job.state for job in (good, bad)] == ["ended", "failed"]
    assert (tmp_path / "runs/good/result.json").is_file() and not (tmp_path / "runs/bad/result.json").exists()
    events = [json.loads(line) for line in (tmp_path / "runs/bad/served.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "stopped" and {event["job"] for event in events} == {"bad"}


def test_a_job_that_ends_leaves_the_others_which_are_gone_on_with(tmp_path):
    both = Both(tmp_path, {"short": job_of(), "long": job_of("seed=3")})
    short, long = both.served.jobs.values()
    for device in (0, 1):
        both.token("short", device)
    with both, ThreadPoolExecutor(2) as pool:
        joined = [pool.submit(both.device, "short", device) for device in (0, 1)]
        assert [one.result(120) for one in joined] == [2, 2]
        soon(lambda: short.state == "ended", 60)
        assert both.thread.is_alive() and long.state == ""
        assert [one.state for one in both.served.standings()] == ["ended", "waiting"]
        late = both.link("short", both.token("short", 0))
        assert late.json("GET", "/v1/round")["phase"] == "ended"
        late.close()
    assert [job.state for job in (short, long)] == ["ended", "stopped"]
    long.served.run._held.release()

    again = Both(tmp_path, tmp_path / "runs")
    assert list(again.served.jobs) == ["long"]
    first, _ = again.served.standings()
    result = json.loads((tmp_path / "runs/short/result.json").read_text())
    assert (first.name, first.state, first.done, first.accuracy) == ("short", "ended", 2, result["accuracy"])
    for device in (0, 1):
        again.token("long", device)
    with again, ThreadPoolExecutor(2) as pool:
        body = asked(again, "/")[2]
        assert "jobs/short/" not in body and "short" in body
        link = again.link("short", again.token("short", 0))
        with pytest.raises(Refused, match="job short has ended") as refused:
            link.json("GET", "/v1/job")
        assert refused.value.status == 410
        link.close()
        joined = [pool.submit(again.device, "long", device) for device in (0, 1)]
        assert [one.result(120) for one in joined] == [2, 2]
        again.thread.join(60)
    with pytest.raises(RunError, match=r"all runs in .* have ended: short, long"):
        several.resume(tmp_path / "runs", again.serving)


def test_a_bug_in_one_job_is_raised_once_the_others_are_done(tmp_path):
    both = Both(tmp_path, {"good": job_of(), "bad": job_of("seed=3")})
    good, bad = both.served.jobs.values()
    bad.served.fleet.opening = lambda *_: 1 / 0
    found = []

    def run():
        try:
            both.served.run()
        except ZeroDivisionError as error:
            found.append(error)

    both.thread._target = run
    for device in (0, 1):
        both.token("good", device)
    with both, ThreadPoolExecutor(2) as pool:
        greeted(both, "bad")
        soon(lambda: bad.state == "failed", 60)
        joined = [pool.submit(both.device, "good", device) for device in (0, 1)]
        assert [one.result(120) for one in joined] == [2, 2]
        both.thread.join(60)
    assert good.state == "ended" and len(found) == 1 and bad.error == "ZeroDivisionError: division by zero"


def serving(folder):
    return Serving(listen=Listen(port=0), roster=folder / "devices.json", graphs=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["fleet.servers=[0, 1]"], "bad: fleet.servers names trunk servers"),
        (["learn.method=central"], "bad: learn.method"),
        (["model.name=/no/such"], "bad: model '/no/such' cannot be loaded"),
    ],
)
def test_where_one_job_cannot_be_none_is_half_made(tmp_path, settings, message):
    with pytest.raises(ConfigError) as found:
        several.start({"good": job_of(), "bad": job_of(*settings)}, tmp_path / "runs", serving(tmp_path))
    assert len(found.value.problems) == 1 and found.value.problems[0].startswith(message)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_there_is_kept(tmp_path):
    jobs = {"one": job_of(), "two": job_of("seed=2")}
    (tmp_path / "runs/two").mkdir(parents=True)
    (tmp_path / "runs/two/config.toml").write_text("seed = 4\n")
    with pytest.raises(RunError, match="already holds a run"):
        several.start(jobs, tmp_path / "runs", serving(tmp_path))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two"]
    assert (tmp_path / "runs/two/config.toml").read_text() == "seed = 4\n"


def test_runs_that_are_there_and_their_list_are_kept(tmp_path):
    (tmp_path / "jobs.json").write_text('{"jobs": ["a", "b"]}\n')
    few = replace(serving(tmp_path), memory=1)  # fails as late as any
    with pytest.raises(RunError, match="already holds several runs; resume them with --resume"):
        several.start({"one": job_of(), "two": job_of("seed=2")}, tmp_path, few)
    assert (tmp_path / "jobs.json").read_text() == '{"jobs": ["a", "b"]}\n'


def test_a_run_is_no_folder_of_several(tmp_path):
    (tmp_path / "config.toml").write_text("seed = 4\n")
    with pytest.raises(RunError, match="already holds a run"):
        several.start({"one": job_of(), "two": job_of("seed=2")}, tmp_path, serving(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("below", ["file", "file/deeper", "n" * 300])
def test_where_no_folder_can_be_is_said_in_one_line(tmp_path, below):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(
        ConfigError, match=r"one: run folder .* cannot be written \(.*choose another with --out"
    ):
        several.start({"one": job_of(), "two": job_of("seed=2")}, tmp_path / below, serving(tmp_path))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("text", ["{", "[]", '{"accuracy": "high"}', "\x00"])
def test_a_result_that_was_damaged_is_refused(tmp_path, text):
    for name in ("one", "two"):
        RunFolder(tmp_path / name).create(job_of())
    (tmp_path / "jobs.json").write_text('{"jobs": ["one", "two"]}')
    (tmp_path / "one/result.json").write_text(text)
    with pytest.raises(RunError, match=r"one/result.json cannot be read .*--resume .*/one"):
        several.resume(tmp_path, serving(tmp_path))


def test_a_run_that_was_deleted_is_named_with_what_to_do(tmp_path):
    RunFolder(tmp_path / "one").create(job_of())
    (tmp_path / "jobs.json").write_text('{"jobs": ["one", "two"]}')
    with pytest.raises(
        RunError, match=r"jobs.json names two, but .*two holds no run; put it back, or resume"
    ):
        several.resume(tmp_path, serving(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", '{"jobs": []}', '{"jobs": ["../x"]}', '{"jobs": "a"}', "null"])
def test_a_list_of_jobs_that_was_damaged_is_refused(tmp_path, text):
    (tmp_path / "jobs.json").write_text(text)
    with pytest.raises(RunError, match=r"jobs.json cannot be read .*--resume"):
        several.resume(tmp_path, serving(tmp_path))
