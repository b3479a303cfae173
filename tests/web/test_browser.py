"""Tabs of a real browser as devices of a served job, over TLS, beside a device without torch."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from sflam.records import history
from tests.learn.builders import assert_equal_states
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import JOB, sets, simulated
from tests.web.tabs import Tab, browser_of, link_of, needs_browser

pytestmark = needs_browser
THREE = ("fleet.devices=3",)
CLOSE = 0.03
"""Accuracy by which two runs of the default job on three devices may differ, of which only the rounding is unlike."""


def accuracy_of(run):
    return history.read(run / "history.jsonl")[1][-1].accuracy


def trained_by_tabs(folder, settings, *, seconds):
    """Run a job on two tabs and a device without torch; return the tabs' last lines."""
    with network(folder) as net:
        server = net.serve(*sets(settings), "--browser", "--out", folder / "run", graphs=True)
        lean = net.device(2)
        with browser_of(folder) as browser:
            tabs = [Tab(browser, link_of(net, device)).train() for device in range(2)]
            lines = [tab.wait_ended(seconds) for tab in tabs]
            assert browser.complaints == []
            asked = {urlsplit(request).netloc for request in browser.requests if request != "about:blank"}
            assert asked == {f"localhost:{net.port}"}
            assert all("token" not in tab.value("location.href") for tab in tabs)
        assert server.wait() == 0, server.lines
        assert lean.wait() == 0, lean.lines
    return lines


def test_two_tabs_and_a_device_without_torch(tmp_path):
    settings = (*THREE, "learn.rounds=1", "learn.local_steps=3")
    lines = trained_by_tabs(tmp_path, settings, seconds=120)
    assert all("the job has ended; this device trained 1 rounds" in line for line in lines)
    [record] = history.read(tmp_path / "run" / "history.jsonl")[1]
    assert record.participants == (0, 1, 2)


@pytest.mark.slow
def test_the_default_job_as_accurately_as_three_torch_devices(tmp_path):
    trained_by_tabs(tmp_path / "tabs", THREE, seconds=1200)
    with network(tmp_path / "torch") as net:
        server = net.serve(*sets(THREE), "--out", tmp_path / "torch" / "run")
        joined = [net.join(device) for device in range(3)]
        assert server.wait(1200) == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    ours, theirs = (accuracy_of(tmp_path / name / "run") for name in ("tabs", "torch"))
    print(f"accuracy: two tabs and a device without torch {ours:.4f}, three torch devices {theirs:.4f}")
    assert ours > 0.8 and abs(ours - theirs) <= CLOSE, (ours, theirs)


@pytest.mark.slow
def test_a_tab_reloaded_in_the_middle_of_a_round_goes_on(tmp_path):
    settings = (
        *JOB, "learn.local_steps=60", "quant.scheme=identity", "learn.optimizer=sgd", "learn.lr=0.05", "learn.clip=0"
    )  # fmt: skip
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--browser", "--out", tmp_path / "run", graphs=True)
        others = [net.device(device) for device in (1, 2)]
        with browser_of(tmp_path) as browser:
            tab = Tab(browser, link_of(net, 0)).train()
            for step in (5, 20, 40):
                tab.wait_for(f"parseInt(document.getElementById('step').innerText) > {step}", 300)
                tab.reload()
            tab.wait_ended(600)
        assert server.wait(60) == 0, server.lines
        assert [other.wait(20) for other in others] == [0, 0]
    assert_equal_states(adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings), 1e-3)


@pytest.mark.slow
def test_what_cannot_be_done_is_one_line_on_the_page(tmp_path):
    settings = (*THREE, "model.dtype=float64")
    with network(tmp_path) as net:
        net.serve(*sets(settings), "--browser", "--out", tmp_path / "run", graphs=True)
        with browser_of(tmp_path) as browser:
            tab = Tab(browser, link_of(net, 0))
            tab.wait_for("!document.getElementById('failed').hidden")
            assert "a browser cannot do model.dtype = float64" in tab.text("failed")
            # Another link, opened where the page is already.
            tab.value(f"location.href = '{link_of(net, 1).replace('token=sflam_', 'token=sflam_x')}'")
            tab.wait_for("document.getElementById('failed').innerText.includes('not in the roster')")


STROKES = ((40, 30), (110, 30), (70, 130))
"""Places on the pad, of a seven."""
PICTURE = """(async () => {
  const canvas = new OffscreenCanvas(20, 30);
  const context = canvas.getContext("2d");
  context.fillStyle = "#f00";
  context.fillRect(0, 0, 20, 30);
  const files = new DataTransfer();
  files.items.add(new File([await canvas.convertToBlob()], "red.png"));
  const input = document.getElementById("files");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
})()"""
GREYS = """Array.from(document.querySelectorAll(".sample"), (sample) => {
  const canvas = sample.querySelector("canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [sample.innerText.trim(), canvas.width, Math.min(...data.filter((_, i) => i % 4 === 0)), data[0]];
})"""


def draw(tab):
    """Draw on the pad, with a mouse."""
    pad = "document.getElementById('pad')"
    tab.value(f"{pad}.scrollIntoView()")
    corner = tab.value(f"(({{x, y}}) => [x, y])({pad}.getBoundingClientRect())")
    for number, (x, y) in enumerate(STROKES):
        kind = "mouseMoved" if number else "mousePressed"
        place = {"x": corner[0] + x, "y": corner[1] + y, "button": "left", "buttons": 1, "clickCount": 1}
        tab.browser.send("Input.dispatchMouseEvent", type=kind, **place)
    tab.browser.send("Input.dispatchMouseEvent", type="mouseReleased", **place)


@pytest.mark.slow
def test_samples_that_a_user_draws_and_picks_are_trained_on_and_kept(tmp_path):
    settings = ("fleet.devices=1", "learn.rounds=1", "learn.local_steps=2", "learn.batch=2")
    with network(tmp_path, 1) as net:
        server = net.serve(*sets(settings), "--browser", "--out", tmp_path / "run", graphs=True)
        with browser_of(tmp_path, width=400) as browser:
            tab = Tab(browser, link_of(net, 0))
            tab.wait_for("document.querySelectorAll('#classes button').length === 10")
            assert tab.value("document.getElementById('start').disabled")
            tab.value("document.querySelectorAll('#classes button')[7].click()")
            draw(tab)
            tab.click("add")
            tab.wait_for("document.getElementById('count').innerText === '1 sample'")
            draw(tab)
            tab.click("add")
            tab.value("document.querySelectorAll('#classes button')[3].click()")
            tab.value(PICTURE)
            tab.wait_for("document.getElementById('count').innerText === '3 samples'")
            red, seven, other = tab.value(GREYS)
            assert red == ["3", 16, 76, 76] and seven == other and seven[:3] == ["7", 8, 0]
            assert tab.value("document.documentElement.scrollWidth") <= 400
            tab.value("document.querySelectorAll('.sample')[1].click()")
            tab.wait_for("document.getElementById('count').innerText === '2 samples'")
            tab.reload()
            tab.wait_for("document.getElementById('count').innerText === '2 samples'")
            assert tab.text("counts") == "3: 1 · 7: 1"
            tab.click("start")
            tab.wait_ended()
            assert browser.complaints == []
        assert server.wait() == 0, server.lines
    assert history.read(tmp_path / "run" / "history.jsonl")[1][-1].samples == 4
