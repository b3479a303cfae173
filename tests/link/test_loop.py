"""The loop over a half in plain NumPy and a server that answers from memory: what is written, lost and made again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sflam.codec.bodies import decode, encode
from sflam.codec.messages import AdapterFrame, GradientFrame, StepFrame
from sflam.codec.quantizers import quantizer
from sflam.errors import BrokenOff, Refused, ServeError
from sflam.learn.settings import LearnSettings
from sflam.link import state
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.link.half import Arrays, Incoming, LocalStep, Outgoing, TakenRows
from sflam.link.loop import Client
from sflam.link.place import Place
from tests.held import held_elsewhere

DIM, SAMPLES, STEPS, ROUNDS = 6, 10, 4, 3
LEARN = LearnSettings(local_steps=STEPS, batch=4, rounds=ROUNDS, lr=0.1, optimizer="sgd", momentum=0.5)
DRAW = np.random.default_rng(0)
DATA = DRAW.normal(size=(SAMPLES, DIM)).astype(np.float32)
LABELS = np.arange(SAMPLES, dtype=np.int32) % 3


class Scaled:
    """Activations are samples times trained factors [d]; SGD with momentum. Pieces are single rows."""

    dim, float_bits, lengths, has_head, trained = DIM, 32, None, False, DIM

    def __init__(self) -> None:
        self.values = np.zeros(DIM, np.float32)
        self.momenta = np.zeros(DIM, np.float32)
        self.rows = DATA[:0]

    def read(self) -> NDArray[Any]:
        return self.values.copy()

    def write(self, values: NDArray[Any]) -> None:
        self.values = values.copy()

    def begin(self, start: NDArray[Any]) -> None:
        assert np.array_equal(start, self.values)

    def take(self, indices: NDArray[np.int64]) -> TakenRows:
        self.rows = DATA[indices]
        return TakenRows(len(indices), len(indices), None, LABELS[indices])

    def forward(self, step: LocalStep, out: Outgoing[NDArray[Any]]) -> None:
        for row in self.rows:
            out.write((row * self.values)[None])

    def finish(self, step: LocalStep, last: Incoming[Any], out: Outgoing[Any]) -> float:
        raise AssertionError("labels are at the server")

    def backward(self, step: LocalStep, gradient: Incoming[NDArray[Any]] | None) -> None:
        assert gradient is not None
        own = np.concatenate([gradient.read(1) * row for row in self.rows]).sum(axis=0)
        self.momenta = self.momenta * np.float32(0.5) + own
        self.values = self.values - np.float32(step.rate) * self.momenta

    def optimizer(self) -> Arrays:
        return {"momenta": self.momenta.copy()}

    def put_optimizer(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.momenta = np.array(state["momenta"]) if state else np.zeros(DIM, np.float32)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> bool:
        self.values = state["values"].copy()
        return True

    def state(self) -> Arrays:
        return {"values": self.values.copy()}


class Died(BaseException):
    """The process is no more."""


class Read:
    """An answer read while it comes, which may break off."""

    def __init__(self, body: bytes, broken: int | None) -> None:
        self.body, self.left, self.broken = body, len(body), broken

    def read(self, count: int) -> bytes:
        first = len(self.body) - self.left
        if self.broken is not None and first + count > self.broken:
            raise BrokenOff("lost")
        self.left -= count
        return self.body[first : first + count]

    def close(self) -> None:
        assert not self.left, "all of it is read"


class Memory:
    """A server and the way to it: answers a step with minus its activations, and keeps the last answer.

    ``fault(requests)`` may raise instead, before or after the request was answered.
    """

    asked_s = received_s = 0.0

    def __init__(self, fault: Any = None) -> None:
        self.round, self.attempt, self.exchange = 0, 1, 0
        self.paces: list[float | None] = []
        self.values = np.ones(DIM, np.float32)
        self.kept: tuple[str, bytes] = ("", b"")
        self.bodies: list[tuple[str, bytes]] = []
        self.fault, self.count = fault, itertools.count(1)
        self.streamed = 0
        self.breaks: Iterator[int] = iter(())

    def sleep(self, seconds: float) -> None:
        raise AssertionError("there is nothing to wait for")

    def pace(self, rate: float | None) -> None:
        self.paces.append(rate)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        if method == "POST":
            return {}
        phase = "open" if self.round < ROUNDS else "ended"
        after = int(path.partition("after=")[2] or -1)
        if (
            phase == "open" and after >= self.attempt
        ):  # a round that waits for this device alone is closed without it
            self._next()
            return self.json("GET", "/v1/round")
        return {
            "phase": phase, "round": self.round, "attempt": self.attempt, "known": True, "seated": True,
            "delivered": False, "exchange": self.exchange, "bits": [4, 4],
        }  # fmt: skip

    def call(self, method: str, path: str, body: Any = None, headers: Any = None, *, most: int = 0) -> bytes:
        number = next(self.count)
        if self.fault:
            self.fault(number, before=True)
        found = self._answer(method, path, body)
        assert len(found) <= most or not most
        if self.fault:
            self.fault(number, before=False)
        return found

    def stream(self, method: str, path: str, body: Any, headers: Any = None, *, most: int = 0) -> Any:
        """Answer with what may break off after ``breaks`` bytes."""
        self.streamed += 1
        return Read(self.call(method, path, body, headers, most=most), next(self.breaks, None))

    def _answer(self, method: str, path: str, body: Any) -> bytes:
        at = f"/v1/rounds/{self.round}/{self.attempt}"
        if method == "GET":
            return encode(AdapterFrame(self.round, 0, samples=0, values=self.values))
        if path == self.kept[0]:
            assert bytes(body) == self.bodies[-1][1], "a step that is made again is the same to the bit"
            return self.kept[1]
        if method == "PUT":
            message = decode(body)
            assert isinstance(message, AdapterFrame) and path == f"{at}/adapters"
            self.values = message.values.copy()
            self.bodies.append((path, bytes(body)))
            self._next()
            return b""
        if path != f"{at}/steps/{self.exchange}":
            raise Refused(409, "another step is due")
        step = decode(body)
        assert isinstance(step, StepFrame)
        tokens = quantizer("uniform").decode(step.activations)
        answer = quantizer("uniform").encode(-tokens, 4, 99)
        self.bodies.append((path, bytes(body)))
        self.kept = path, encode(GradientFrame(self.round, self.exchange, 0, loss=0.5, gradient=answer))
        self.exchange += 1
        return self.kept[1]

    def _next(self) -> None:
        self.round, self.attempt, self.exchange = self.round + 1, self.attempt + 1, 0


def client(
    server: Any, folder: Path, learn: LearnSettings = LEARN, every: int = 1, streaming: bool = False
) -> Client[NDArray[Any]]:
    exchange = TokenExchange(NumpyCoder("uniform"), "uniform", 1, 0, DIM, 32, (4, 4))
    place = Place(0, "run", 1, np.arange(SAMPLES))
    return Client(
        server, place, Scaled(), learn, exchange, folder / "state", state_every=every, streaming=streaming
    )


def lived(server: Memory, folder: Path, learn: LearnSettings = LEARN, every: int = 1) -> int:
    """Run a device over its deaths; return these."""
    deaths = 0
    while True:
        try:
            client(server, folder, learn, every).run()
            return deaths
        except Died:
            deaths += 1


KEPT = replace(LEARN, state="keep")


@pytest.fixture(scope="module", params=["reset", "keep"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the settings, and all that an undisturbed device sends."""
    learn = replace(LEARN, state=request.param)
    server = Memory()
    assert lived(server, tmp_path_factory.mktemp("device"), learn) == 0
    assert len(server.bodies) == ROUNDS * (STEPS + 1)
    return learn, server.bodies


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", range(1, 1 + ROUNDS * (STEPS + 2)))
def test_a_device_that_dies_at_any_request_sends_the_same(
    undisturbed: Any, tmp_path: Path, at: int, before: bool
) -> None:
    learn, wanted = undisturbed

    def fault(number: int, *, before: bool, when: bool = before) -> None:
        if number == at and before is when:
            raise Died

    server = Memory(fault)
    assert lived(server, tmp_path, learn) == 1
    assert server.bodies == wanted


@pytest.mark.parametrize("at", range(1, 1 + ROUNDS * (STEPS + 2)))
def test_an_answer_that_breaks_off_has_its_step_made_again(undisturbed: Any, tmp_path: Path, at: int) -> None:
    learn, wanted = undisturbed

    def fault(number: int, *, before: bool) -> None:
        step = (number - 1) % (STEPS + 2) not in (0, STEPS + 1)
        if number == at and not before and step:
            raise BrokenOff("lost")

    server = Memory(fault)
    assert lived(server, tmp_path, learn) == 0
    assert server.bodies == wanted


def test_answers_read_while_they_come_may_break_off_anywhere(undisturbed: Any, tmp_path: Path) -> None:
    learn, wanted = undisturbed
    server = Memory()
    server.breaks = iter([0, 592, 600, 612, 615, 618, 622])  # header, side, codes; then none
    assert client(server, tmp_path, learn, streaming=True).run() == ROUNDS
    assert server.bodies == wanted and server.streamed == ROUNDS * STEPS


@pytest.mark.parametrize("every", [0, 2, 3])
@pytest.mark.parametrize("at", range(1, 1 + STEPS + 2))
def test_with_fewer_states_a_death_costs_a_round_at_most(tmp_path: Path, every: int, at: int) -> None:
    second = STEPS + 2 + at  # a request of the second round

    def fault(number: int, *, before: bool) -> None:
        if number == second and not before:
            raise Died

    server = Memory(fault)
    assert lived(server, tmp_path, KEPT, every) == 1
    delivered = [path for path, _ in server.bodies if path.endswith("adapters")]
    assert len(delivered) >= ROUNDS - 1 and delivered[-1].startswith(f"/v1/rounds/{ROUNDS - 1}/")
    # What it may go on with: the state of the step the server is at, or of the one before it.
    done = at - 1
    kept = done == 0 or at == STEPS + 2 or (every and done > 1 and (done - 1) % every == 0)
    assert (len(delivered) == ROUNDS) == bool(kept), (done, server.bodies)


@pytest.mark.parametrize(("every", "states"), [(0, 1), (1, STEPS + 1), (2, 2), (3, 2)])
def test_how_often_the_state_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, states: int
) -> None:
    written: list[int] = []
    save = state.save
    monkeypatch.setattr(state, "save", lambda *given: written.append(given[1]["step"]) or save(*given))
    assert lived(Memory(), tmp_path, LEARN, every) == 0
    assert len(written) == ROUNDS * states and written.count(STEPS) == ROUNDS


def test_a_folder_belongs_to_one_device(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path), pytest.raises(ServeError, match="belongs to a device that is running"):
        client(Memory(), tmp_path)
    client(Memory(), tmp_path)


def test_the_state_of_another_run_is_left_alone(tmp_path: Path) -> None:
    lived(Memory(), tmp_path)
    place = Place(0, "another run", 1, np.arange(SAMPLES))
    one = client(Memory(), tmp_path)
    assert one.round == ROUNDS - 1
    exchange = TokenExchange(NumpyCoder("uniform"), "uniform", 1, 0, DIM, 32, (4, 4))
    server: Any = Memory()
    assert Client(server, place, Scaled(), LEARN, exchange, tmp_path / "state").round == -1


class Hasty(Memory):
    """A server that answers at once that there is nothing to do, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.idle = times
        self.slept: list[float] = []

    def json(self, method: str, path: str, body: Any = None) -> Any:
        if method == "GET" and self.idle:
            self.idle -= 1
            return super().json(method, path, body) | {
                "phase": "waiting",
                "seated": False,
                "delivered": False,
            }
        return super().json(method, path, body)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_server_that_does_not_hold_its_answers_back_is_not_asked_without_end(tmp_path: Path) -> None:
    server = Hasty(30)
    assert client(server, tmp_path).run() == ROUNDS
    assert len(server.slept) == 26 and server.slept[:3] == [0.1, 0.2, 0.4] and max(server.slept) == 5.0
