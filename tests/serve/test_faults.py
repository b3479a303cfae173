"""Lost answers, killed devices, a killed server: the result is that of an undisturbed run, bit for bit.

With torch that is the simulation's; of devices without it, that of a served run that nothing befell.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import sys
import time
from typing import ClassVar

import pytest
import torch

from sflam.records import history
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets, simulated

LONG = (*FOUR_BITS, "learn.local_steps=6")
SUMMED = ("privacy.secure_aggregation=true", "quant.adapters_scale=common")


def lose_every_fifth_answer():
    """Make every device's connection break after every fifth request, its answer unread."""
    count, ask = itertools.count(1), http.client.HTTPConnection.getresponse

    def getresponse(self):
        if next(count) % 5 == 0:
            ask(self).read()  # the server has computed and answered; the device never learns
            raise ConnectionResetError("lost on purpose")
        return ask(self)

    http.client.HTTPConnection.getresponse = getresponse


def equal(found, wanted):
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


JOIN, DEVICE = "join", "device"


@pytest.fixture(params=[JOIN, DEVICE])
def fleet(request, tmp_path_factory):
    """Devices of one kind, and what they end with where nothing goes wrong."""
    return Kind(request.param, tmp_path_factory)


class Kind:
    """Devices of one kind."""

    undisturbed: ClassVar[dict[tuple[str, ...], object]] = {}

    def __init__(self, name, folders):
        self.name, self.folders = name, folders

    def serve(self, net, *arguments, **options):
        """Start a server for them."""
        return net.serve(*arguments, graphs=self.name == DEVICE, **options)

    def start(self, net, device, **options):
        """Start one of them."""
        return getattr(net, self.name)(device, **options)

    def expect(self, folder, settings):
        """The adapters of the run in ``folder`` are those of an undisturbed one."""
        key = (self.name, *settings)
        if key not in self.undisturbed:
            own = self.folders.mktemp("undisturbed")
            self.undisturbed[key] = (
                simulated(own, settings) if self.name == JOIN else self._served(own, settings)
            )
        assert equal(adapters_of(folder), self.undisturbed[key])

    def _served(self, folder, settings):
        with network(folder) as net:
            server = self.serve(net, *sets(settings), "--out", folder / "run")
            joined = [self.start(net, device) for device in range(3)]
            assert server.wait() == 0, server.lines
            assert [device.wait(20) for device in joined] == [0, 0, 0]
        return adapters_of(folder / "run")


@pytest.mark.slow
def test_every_fifth_answer_lost(room, tmp_path, fleet):
    settings = job_of(room, *LONG, "learn.rounds=1")
    with network(tmp_path) as net:
        server = fleet.serve(net, *sets(settings), "--out", tmp_path / "run")
        joined = [fleet.start(net, device, prepare=lose_every_fifth_answer) for device in range(3)]
        assert server.wait() == 0, server.lines
        for device in joined:
            device.wait(20)
    fleet.expect(tmp_path / "run", settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "scheme"), [("server", "uniform"), ("device", "uniform"), ("device", "topk")]
)
def test_a_device_killed_at_any_moment_comes_back(room, tmp_path, fleet, labels, scheme):
    how = ("learn.local_steps=120", "learn.state=keep", f"model.labels={labels}", f"quant.scheme={scheme}")
    settings = job_of(room, *LONG, *how)
    with network(tmp_path) as net:
        server = fleet.serve(net, *sets(settings), "--out", tmp_path / "run")
        joined = [fleet.start(net, device) for device in range(3)]
        for victim in (0, 1, 0):
            joined[victim].wait_for("samples")
            server.wait_for("round 1, attempt 1")
            time.sleep(1.0)
            joined[victim].kill(signal.SIGKILL)
            joined[victim].process.join(10)
            joined[victim] = fleet.start(net, victim)
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    fleet.expect(tmp_path / "run", settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "more"),
    [
        (signal.SIGKILL, ()),
        (signal.SIGTERM, ()),
        (signal.SIGKILL, ("learn.cache=server", "learn.device_half=frozen")),
    ],
)
def test_a_server_killed_mid_round_goes_on_with_the_next_attempt(room, tmp_path, fleet, number, more):
    settings = job_of(room, *LONG, "learn.local_steps=20", "learn.state=keep", "learn.rounds=2", *more)
    with network(tmp_path) as net:
        server = fleet.serve(net, *sets(settings), "--out", tmp_path / "run")
        joined = [fleet.start(net, device) for device in range(3)]
        server.wait_for("round 2, attempt 2")
        time.sleep(0.5)
        server.kill(number)
        code = server.wait(20)
        assert code == (-9 if number == signal.SIGKILL else 130), server.lines
        server = fleet.serve(net, "--resume", tmp_path / "run")
        server.wait_for("round 2, attempt 3")
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0], [device.lines for device in joined]
    fleet.expect(tmp_path / "run", settings)


class DieAfter:
    """Kill the server's own process, as kill -9 would, after so many answers and before the last of them is sent."""

    def __init__(self, answers):
        self.answers = answers

    def __call__(self):
        from sflam.serve.dispatch import Dispatch

        count, answer = itertools.count(1), Dispatch.answer

        def dying(dispatch, arrival, attempt, body):
            if next(count) == self.answers:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(dispatch, arrival, attempt, body)

        Dispatch.answer = dying


@pytest.mark.slow
@pytest.mark.parametrize("answers", [1, 2, 4, 6, 7, 9, 12])
def test_a_server_killed_between_any_two_steps(room, tmp_path, fleet, answers):
    killed_and_resumed(room, tmp_path, fleet, answers)


class DieInSum:
    """Kill the server's own process, as kill -9 would, at the end of so many phases of its sums."""

    def __init__(self, phases):
        self.phases = phases

    def __call__(self):
        from sflam.serve.sums.open_sum import OpenSum

        count = itertools.count(1)

        def counted(made):
            def dying(one, *arguments):
                if next(count) == self.phases:
                    os.kill(os.getpid(), signal.SIGKILL)
                return made(one, *arguments)

            return dying

        OpenSum._end, OpenSum.total = counted(OpenSum._end), counted(OpenSum.total)


@pytest.mark.slow
@pytest.mark.parametrize("phases", [1, 2, 3, 4, 7])
def test_a_server_killed_in_a_sum(room, tmp_path, fleet, phases):
    """The round is made again, whatever of the sum was there: four phases a round."""
    killed_and_resumed(room, tmp_path, fleet, DieInSum(phases), *SUMMED)


class DieMasking:
    """Kill a device's own process before it sends its masked numbers."""

    def __call__(self):
        from sflam.secure.device_side import MaskingDevice

        def dying(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)

        MaskingDevice.mask = dying


@pytest.mark.slow
def test_a_device_killed_in_a_sum_comes_back_for_the_next_round(room, tmp_path, fleet):
    settings = job_of(room, *FOUR_BITS, "learn.rounds=2", *SUMMED, "fleet.devices=4")
    with network(tmp_path, 4) as net:
        server = fleet.serve(net, *sets(settings), "--out", tmp_path / "run")
        joined = [fleet.start(net, device) for device in range(3)]
        joined.append(fleet.start(net, 3, prepare=DieMasking()))
        joined[3].process.join(60)
        assert joined[3].process.exitcode == -9
        joined[3] = fleet.start(net, 3)
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0, 0]
    rounds = history.read(tmp_path / "run" / "history.jsonl")[1]
    assert [one.participants for one in rounds] == [(0, 1, 2), (0, 1, 2, 3)]
    assert [one.secured.devices for one in rounds] == [(0, 1, 2), (0, 1, 2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("answers", [5, 17])
def test_a_killed_server_and_the_memory_of_quantizers_on_both_sides(room, tmp_path, fleet, answers):
    killed_and_resumed(room, tmp_path, fleet, answers, "quant.scheme=topk", "model.labels=device")


@pytest.mark.slow
@pytest.mark.parametrize("answers", [5, 8])
def test_a_killed_server_and_the_grids_of_the_last_round(room, tmp_path, fleet, answers):
    killed_and_resumed(room, tmp_path, fleet, answers, "quant.bits_adapters=4", "quant.adapters_scale=common")


def killed_and_resumed(room, tmp_path, fleet, answers, *more):
    """Kill the server after so many answers of 2 rounds of 2 steps of 3 devices; it ends as the simulation does."""
    settings = job_of(room, *FOUR_BITS, "learn.state=keep", "learn.rounds=2", *more)
    with network(tmp_path) as net:
        prepare = answers if callable(answers) else DieAfter(answers)
        server = fleet.serve(net, *sets(settings), "--out", tmp_path / "run", prepare=prepare)
        joined = [fleet.start(net, device) for device in range(3)]
        assert server.wait() == -9, server.lines
        server = fleet.serve(net, "--resume", tmp_path / "run")
        assert server.wait() == 0, server.lines
        assert [device.wait(60) for device in joined] == [0, 0, 0], [device.lines for device in joined]
    fleet.expect(tmp_path / "run", settings)


@pytest.mark.slow
def test_a_round_closes_without_a_device_that_stays_away(room, tmp_path, fleet):
    settings = job_of(room, "learn.local_steps=20", "learn.rounds=2")
    with network(tmp_path) as net:
        server = fleet.serve(net, *sets(settings), "--out", tmp_path / "run", "--quorum", 2, "--patience", 15)
        joined = [fleet.start(net, device) for device in range(3)]
        server.wait_for("round 1, attempt 1")
        time.sleep(0.3)
        joined[2].kill(signal.SIGKILL)
        server.wait_for("went on without devices 2")
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined[:2]] == [0, 0]


def evaluate_slowly():
    """Make an evaluation take minutes, a sample at a time."""
    from sflam.learn import evaluate

    ask, shown = evaluate.logits_of, itertools.count(1)

    def logits_of(model, batch):
        if next(shown) == 2:
            print("in the middle of an evaluation", file=sys.stderr)
        time.sleep(0.5)
        return ask(model, batch)

    evaluate.logits_of = logits_of
    evaluate.evaluate.__wrapped__.__kwdefaults__["rows"] = 1


@pytest.mark.slow
def test_a_server_stopped_in_an_evaluation_leaves_before_the_end_of_it(room, tmp_path):
    settings = job_of(room, *FOUR_BITS, "learn.rounds=1")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", prepare=evaluate_slowly)
        joined = [net.join(device) for device in range(3)]
        server.wait_for("in the middle of an evaluation")
        server.kill(signal.SIGTERM)
        assert server.wait(30) == 130, server.lines
        server = net.serve("--resume", tmp_path / "run")
        assert server.wait() == 0, server.lines
        assert [device.wait(60) for device in joined] == [0, 0, 0], [device.lines for device in joined]
        assert all(sum("no answer" in line for line in device.lines) <= 3 for device in joined)
    assert equal(adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings))


@pytest.mark.slow
def test_a_device_that_never_comes_is_waited_for_once_and_no_round_after_that(room, tmp_path):
    settings = job_of(room, *FOUR_BITS, "learn.rounds=3")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", "--quorum", 2, "--gather", 3)
        joined = [net.join(device) for device in range(2)]
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0]
    events = [json.loads(line) for line in (tmp_path / "run/served.jsonl").read_text().splitlines()]
    waits = [event for event in events if event["event"] == "waiting"]
    assert {event["round"] for event in waits} == {0} and waits[-1]["devices"] == [2]
    assert [event["devices"] for event in events if event["event"] == "closed"] == [[0, 1]] * 3
