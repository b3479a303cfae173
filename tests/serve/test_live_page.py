"""The live page: events that change it in a real browser, bounded streams, and what each device does."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.errors import Refused
from sflam.serve.live_stream import STREAMS, LiveStreams
from sflam.serve.round_stats import RoundStats
from sflam.serve.session import Phase
from sflam.serve.timeline import CELLS, MOST, RoundTimeline, Strip
from tests.report.browser import Browser
from tests.serve.test_hostile import Site
from tests.web.tabs import needs_browser


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        yield made


def wait_for(browser, expression, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := browser.value(expression):
            return value
        time.sleep(0.1)
    raise AssertionError((expression, browser.complaints, browser.value("document.body.innerText")))


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_an_event_changes_the_page_in_a_browser(site, width, scheme):
    with Browser(width=width, scheme=scheme) as browser:
        browser.open(f"http://127.0.0.1:{site.server.port}/")
        browser.value("window.kept = 1")
        assert "0 / 3" in browser.value("document.body.innerText")
        assert "waits for devices 0, 1" in browser.value("document.getElementById('waiting').innerText")
        site.ask()
        wait_for(browser, "document.body.innerText.includes('1 / 3')")
        wait_for(browser, "!!document.querySelector('#lines rect.waits, #lines rect.computes')")
        assert browser.value("window.kept") == 1, "without a reload"
        assert browser.value("document.documentElement.scrollWidth") <= width
        asked = [url.rpartition("/")[2] for url in browser.requests if url.startswith("http")]
        assert asked == ["", "events"], "one stream, and nobody asks again and again"
        assert not browser.complaints


def stream(site):
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=20)
    connection.request("GET", "/events")
    return connection, connection.getresponse()


def test_a_stream_is_of_events_and_ends_with_the_server(site):
    connection, answer = stream(site)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/event-stream")
    assert (
        answer.headers["Cache-Control"] == "no-store"
        and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    )
    first = answer.readline().decode()
    main = json.loads(first.removeprefix("data: "))
    assert main.startswith("<main>") and main.endswith("</main>") and "0 / 3" in main
    site.dispatch.stop()
    rest = answer.read().decode()  # comes to an end, and a browser asks again
    assert rest.count("data: ") <= 2 and "event: over" not in rest
    connection.close()


def test_at_the_end_of_the_run_no_more_is_to_come(site):
    site.dispatch.end()
    connection, answer = stream(site)
    rest = answer.read().decode()
    assert rest.endswith("event: over\ndata: 1\n\n") and "phase ended" in rest
    connection.close()


def test_there_are_so_many_streams_and_no_more(site):
    held = [stream(site) for _ in range(STREAMS)]
    for _, answer in held:
        answer.readline()
    connection, answer = stream(site)
    assert (
        answer.status == 503 and answer.headers["Retry-After"] == "30" and b"look on already" in answer.read()
    )
    for one, its_answer in (*held, (connection, answer)):
        its_answer.close()
        one.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:  # those who went make room
        connection, answer = stream(site)
        status = answer.status
        answer.close()
        connection.close()
        if status == 200:
            return
        time.sleep(0.1)
    raise AssertionError(status)


def streams_of(**options):
    dispatch = SimpleNamespace(stopping=False, session=SimpleNamespace(phase=Phase.OPEN))
    pages = iter(f"<main>{number}</main>" for number in range(10**9))
    return dispatch, LiveStreams(dispatch, lambda: next(pages), **options)


async def silent():
    await asyncio.Event().wait()


def test_a_reader_that_does_not_read_is_given_up():
    _, streams = streams_of(patience=0.01, every=0.01)
    closed = []
    scope = {"state": {"connection": SimpleNamespace(close=lambda: closed.append(1))}}

    async def stuck(message):
        if message["type"] == "http.response.body":
            await silent()

    asyncio.run(streams.answer({})(scope, silent, stuck))
    assert closed == [1] and streams.open == 0


def test_a_quiet_stream_has_a_heartbeat():
    dispatch, streams = streams_of(every=0.01, heartbeat=0.02)
    streams.page = lambda: "<main>the same</main>"
    sent = []

    async def read(message):
        sent.append(message.get("body", b""))
        dispatch.stopping = sent.count(b": here\n\n") == 2

    asyncio.run(streams.answer({})({}, silent, read))
    assert sent == [b"", b'data: "<main>the same</main>"\n\n', *[b": here\n\n"] * 2, b""]


def test_a_page_is_made_once_for_all_who_look():
    _, streams = streams_of(every=1000.0)
    assert streams.event() == streams.event()
    streams.open = streams.most
    with pytest.raises(Refused, match="look on already"):
        streams.answer({})


TURNS = st.lists(
    st.tuples(st.floats(0, 1e4), st.sampled_from(["computes", "sends", "waits", None])), max_size=30
)


@given(TURNS)
def test_a_strip_counts_every_second_once(turns):
    strip, now, wanted, state = Strip(), 0.0, 0.0, None
    for seconds, following in turns:
        wanted += seconds if state else 0.0
        now += seconds
        strip.turn(state := following, now)
    assert sum(strip.seconds().values()) == pytest.approx(wanted)
    assert len(strip.cells) <= CELLS and all(sum(cell) <= strip.width * (1 + 1e-9) for cell in strip.cells)
    assert all(end > begin for _, begin, end in strip.runs())


def test_what_a_device_does_is_seen_by_its_bodies():
    now = [0.0]
    stats = RoundStats(lambda: now[0])
    stats.begin()
    for device in (0, 1):
        stats.sent(device, 10, adapters=True)  # what it begins with
    now[0] = 4.0
    with stats.arriving(0) as arrival:
        now[0] = 5.0
        stats.received(arrival, 10)
    now[0] = 8.0
    stats.sent(0, 10)
    now[0] = 10.0
    stats.finished(1)
    [line] = stats.lines(over=False)
    assert line.strips[0].seconds() == pytest.approx({"computes": 6.0, "sends": 1.0, "waits": 3.0})
    assert line.strips[1].seconds() == pytest.approx({"computes": 10.0, "sends": 0.0, "waits": 0.0})
    assert [state for state, _, _ in line.strips[0].runs()] == ["computes", "sends", "waits", "computes"]
    stats.lines(over=True)
    now[0] = 100.0
    stats.begin()
    before, this = stats.lines(over=False)
    assert before.ended == pytest.approx(10.0) and not this.strips, "between rounds nothing is counted"


def test_a_timeline_is_of_so_many_devices_and_no_more():
    line = RoundTimeline(0.0)
    for device in range(10_000):
        line.turn(device, "sends", 1.0)
    assert len(line.strips) == MOST
