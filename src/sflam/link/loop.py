"""A device's life at a served job, whatever runs its part of the model: rounds, steps, faults, and what it writes down.

A device that dies goes on where its state file says: trained values, optimiser, what a quantizer remembers, and the
place in the round. Written after every step, nothing is ever lost. Written less often, or once a round, a device that
dies in between may find the server further on: it then sits that round out, and goes on with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from sflam.codec.bodies import Body
from sflam.codec.legs import DOWN, HEAD_DOWN, HEAD_UP, UP
from sflam.codec.messages import AdapterFrame, GradientFrame, StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.errors import BrokenOff, OtherJob, Refused, ServeError, TrunkAway, WireError
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.link import state
from sflam.link.adapter_way import AdapterWay
from sflam.link.contract import PROTOCOL
from sflam.link.device_report import HEADER
from sflam.link.drawing import batches_for
from sflam.link.exchange import M, Memory, TokenExchange, opened, opened_ahead
from sflam.link.half import Arrays, Half, LocalStep, TakenRows, X
from sflam.link.https_client import FIRST_PAUSE, LONGEST_PAUSE, Link, Streamed
from sflam.link.place import Place
from sflam.link.probing import Probing
from sflam.link.round_work import RoundWork
from sflam.link.sent_rows import SentRows
from sflam.link.standing import ENDED, OPEN, Standing, standing_of
from sflam.link.times import Times
from sflam.link.trunk_way import TrunkWay
from sflam.locks import hold
from sflam.seeds import derive
from sflam.sizes import HEADER_BYTES

if TYPE_CHECKING:  # it needs the cryptography library
    from sflam.link.masked_way import MaskedWay

QUICK, FREE = 0.5, 4
"""Seconds in which an answer without anything to do is quick, and how many such in a row are asked for at once."""


class Client(Generic[X]):
    """One device and its round.

    Args:
        link: the way to the server.
        place: what it brings.
        half: its part of the model.
        learn: how a round is run.
        exchange: how what crosses the cut becomes bytes.
        file: its state.
        state_every: steps after which the state is written; 0 writes it once a round.
        streaming: decode answers while they come, as the half asks for their tokens, instead of holding them whole. One
            that breaks off has its step made again, and is then taken whole.
        adapters: how a round's adapters come and go; over ``link`` by default.
        masked: how what it trained is summed under masks; None sends it by itself.
        notify: shows a line to the user of the device.
    """

    def __init__(
        self,
        link: Link,
        place: Place,
        half: Half[X],
        learn: LearnSettings,
        exchange: TokenExchange[X],
        file: Path,
        *,
        state_every: int = 1,
        streaming: bool = False,
        adapters: AdapterWay | None = None,
        masked: MaskedWay | None = None,
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.adapters, self.masked = adapters or AdapterWay(link), masked
        self.link, self.place, self.half, self.learn, self.exchange = link, place, half, learn, exchange
        self.file, self.state_every, self.notify = file, state_every, notify
        self.streaming, self._streams = streaming, False
        busy = f"{file.parent} belongs to a device that is running; give this one another --folder"
        self._hold = hold(file.parent, busy, error=ServeError)
        self._probing = Probing(link)
        self.sent = SentRows(link, len(place.own)) if learn.cache == "server" else None
        self.rounds = 0
        """Rounds trained in this life."""
        self.round = self.attempt = -1
        self.step = 0
        self.loss = 0.0
        self.way = TrunkWay(link)
        self.times = Times(link)
        """Of the steps of the round, in this life."""
        self.begin: Arrays = {}
        """What the optimiser remembered when the round began, with ``learn.state = "keep"``."""
        self.left_out: Memory = {}
        """What the quantizer had left out when the round began."""
        self.start: NDArray[Any] = np.empty(0, np.float32)
        """The adapters [P] that the round began with, where their change is what goes up."""
        self.grid = np.empty((0, 2), np.uint16)
        """The grids [G, 2] that came with them, where all devices have the same."""
        self._restore()

    def run(self) -> int:
        """Take part until the run ends; return the number of rounds trained.

        Raises:
            ServeError: the server cannot be reached any more, or refuses this device for good.
            OtherJob: it has another job than the one this device took up.
        """
        after, unknown, quick = -1, True, 0
        while True:
            if unknown:
                self._hello()
            asked = time.monotonic()
            found = self.link.json("GET", f"/v1/round?after={after}" if after >= 0 else "/v1/round")
            now = standing_of(found, self.exchange.scheme)
            self._expect_same_job(now)
            unknown = not now.known
            if now.phase == ENDED or (now.phase == OPEN and self.adapters.over(now.round)):
                return self.rounds
            if now.probe and not now.waits_for_this_device and now.phase != ENDED:
                self._probing.answer(now.probe)
            if not now.waits_for_this_device:
                after = max(after, now.attempt) if now.phase == OPEN else max(after, 0)
                quick = quick + 1 if time.monotonic() - asked < QUICK else 0
                if quick > FREE:  # a server that has nothing to do and does not hold the answer back
                    self.link.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (quick - FREE - 1)))
                continue
            quick = 0
            try:
                self.exchange = self.exchange.for_round(*(now.bits or self.exchange.bits), now.attempt)
                self.link.pace(now.pace)
                self.rounds += self._round(now)
                if self.adapters.over(now.round):
                    return self.rounds
            except TrunkAway as away:
                self.notify(f"round {now.round + 1}: {away}")
                self.link.sleep(1.0)
                continue
            except Refused as refused:
                if refused.status != 409:
                    raise
                self.notify(f"round {now.round + 1}: {refused}")
            after = now.attempt

    def release(self) -> None:
        """Let another process, or another job, have this device's folder."""
        self._hold.release()

    def _expect_same_job(self, now: Standing) -> None:
        """Raise OtherJob where the server names another run, or another job, than this device's."""
        if now.run not in (None, self.place.run):
            raise OtherJob(
                f"the server now has run {now.run[:20]!r}, and this device took up {self.place.run!r}"
            )
        if self.place.job and now.job not in (None, self.place.job):
            raise OtherJob("the server's job was changed since this device took it up")

    def _hello(self) -> None:
        """Let the server know of this device, now or when the round it is missed in is over."""
        try:
            sent = {"samples": len(self.place.own), "protocol": PROTOCOL, "version": version("sflam")}
            self.link.json("POST", "/v1/session", sent | {"probe": True})
        except Refused as refused:
            if refused.status != 409:
                raise
            self.notify(str(refused))
            self.link.sleep(1.0)

    def _round(self, now: Standing) -> bool:
        """Take part in an open round, from its start or from where this device is; return whether it delivered."""
        round, attempt = now.round, now.attempt
        batches = batches_for(self.place, self.learn, now, self.half.lengths)
        at = f"/v1/rounds/{round}/{attempt}"
        steps = self.way.to(now.server)
        steps.pace(now.pace)
        self.adapters.prepare(round, attempt)
        if (self.round, self.attempt) != (round, attempt):
            if now.exchange:
                self.notify(f"round {round + 1} goes on without this device, which has lost its part of it")
                return False
            asked = self.link.asked_s
            frame = self.adapters.fetch(round, attempt, self.half.trained)
            self.times = Times(steps, fetch_s=self.link.asked_s - asked)
            self._open(round, attempt, frame)
        self.times.link = steps
        self.times.go_on()
        while self.step < len(batches):
            if len(batches[self.step]):
                self.times.steps += 1
                self._train(at, batches[self.step], len(batches))
            self.step += 1
            if self.step == len(batches) or (self.state_every and self.step % self.state_every == 0):
                self._save()
        self.times.rest()
        self._deliver(now, batches)
        return True

    def _open(self, round: int, attempt: int, frame: AdapterFrame | None) -> None:
        """Begin a round from the global adapters in ``frame``; None where there are none."""
        half, again = self.half, round == self.round
        if self.sent:
            self.sent.renew(round, attempt)
        if frame is not None:
            start = frame.values
            if self.exchange.changes:
                self.start = start.copy()
                self.grid = self.grid[:0] if frame.grid is None else frame.grid.copy()
            half.write(start)
            half.begin(start)
        if self.learn.practice.state == "keep":
            if again:  # the optimiser goes back as well
                half.put_optimizer(self.begin)
            self.begin = {name: array.copy() for name, array in half.optimizer().items()}
        else:
            half.put_optimizer({})
        if again:
            self.exchange.remember(self.left_out)
        self.left_out = self.exchange.memory()
        self.round, self.attempt, self.step, self.loss = round, attempt, 0, 0.0
        if self.state_every == 1:
            self._save()

    def _train(self, at: str, indices: NDArray[np.int64], steps: int) -> None:
        """Make one step of ``steps`` in the round, again from its beginning where an answer breaks off."""
        moment = Moment(self.round, self.step, steps)
        seed = derive(self.place.seed, "dropout", self.round, self.step, self.place.number)
        speed, head = rate(self.learn, moment), derive(seed, "head")
        now = LocalStep(self.round, self.step, seed, head, speed, self.attempt)
        memory = self.exchange.memory()
        self._streams = self.streaming and self.exchange.streams
        while True:
            try:
                with self.way.watched():
                    loss, rows = self._exchanges(f"{at}/steps/{self.step}", indices, now)
                break
            except TrunkAway:
                self.exchange.remember(memory)
                raise
            except BrokenOff as lost:
                self.notify(f"{lost}; this step is made again")
                self.exchange.remember(memory)
                self._streams = False
        self.loss += loss * rows
        if self.sent:
            self.sent.add(indices)

    def _exchanges(self, path: str, indices: NDArray[np.int64], now: LocalStep) -> tuple[float, int]:
        """Run a step; return its mean loss and its rows."""
        half, exchange, number = self.half, self.exchange, self.place.number
        taken, body = self.sent.body(half, exchange, indices, now) if self.sent else self._whole(indices, now)
        tokens = taken.tokens
        if not half.has_head:
            answer, rest = self._ask(path, body, tokens, GradientFrame)
            if answer is None:
                raise WireError("an empty answer came where a loss was agreed")
            self._backward(now, answer.gradient, tokens, rest)
            return answer.loss, taken.rows
        last, rest = self._ask(f"{path}/forward", body, tokens, TokenFrame)
        if last is None:
            raise WireError("an empty answer came where activations were agreed")
        sent = exchange.outgoing(
            now.round,
            now.step,
            HEAD_UP,
            tokens,
            lambda packed: TokenFrame(now.round, now.step, number, packed),
        )
        loss = half.finish(now, exchange.incoming(last.tokens, HEAD_DOWN, tokens, rest), sent)
        if rest is not None:
            rest.close()
        back, rest = self._ask(f"{path}/backward", sent.body(), tokens, TokenFrame)
        self._backward(now, None if back is None else back.tokens, tokens, rest)
        return loss, taken.rows

    def _whole(self, indices: NDArray[np.int64], now: LocalStep) -> tuple[TakenRows, Body]:
        """Return the rows of a step, and its body with the activations of all."""
        taken = self.half.take(indices)

        def announced(packed: Packed) -> StepFrame:
            place = now.round, now.step, self.place.number
            return StepFrame(*place, packed, taken.rows, taken.lengths, taken.labels)

        sent = self.exchange.outgoing(now.round, now.step, UP, taken.tokens, announced)
        self.half.forward(now, sent)
        return taken, sent.body()

    def _backward(self, now: LocalStep, packed: Packed | None, tokens: int, rest: Streamed | None) -> None:
        """Take the optimiser's step with the gradient of an answer; None where nothing below the cut trains."""
        exchange = self.exchange
        self.times.fullest()
        self.half.backward(now, None if packed is None else exchange.incoming(packed, DOWN, tokens, rest))
        if rest is not None:
            rest.close()

    def _ask(self, path: str, body: Body, tokens: int, kind: type[M]) -> tuple[M | None, Streamed | None]:
        """Return the answer to a body of ``tokens``, and where its codes come from while they are still to come."""
        headers = {"Sflam-Tokens": str(tokens)} if self.place.text else {}
        most = HEADER_BYTES + 12 * tokens * self.half.dim  # 64 bits a value, and its token's side
        if self._streams:
            answer = self.way.link.stream("POST", path, body, headers, most=most)
            return opened_ahead(answer, kind), answer
        found = self.way.link.call("POST", path, body, headers, most=most)
        return opened(found, kind) if found else None, None

    def _deliver(self, now: Standing, batches: Sequence[NDArray[Any]]) -> None:
        """Send what was trained."""
        round, samples = now.round, sum(map(len, batches))
        mean = self.loss / max(1, samples)
        headers = {HEADER: self.times.report().to_header()}
        if self.half.has_head:
            headers["Sflam-Loss"] = repr(mean)
        values = self.half.read() if self.half.trained else self.start[:0]
        work = RoundWork(round, self.attempt, samples, values, self.start, self.grid, now.sum_width)
        if self.masked is None:
            body = bytes(self.exchange.trained(work)) if self.half.trained else b""
            self.adapters.deliver(round, self.attempt, body, headers)
        else:
            self.masked.deliver(work, headers)
        steps = sum(map(bool, map(len, batches)))
        self.notify(f"round {round + 1}: {steps} steps, loss {mean:.4f}")

    def _save(self) -> None:
        """Write the state of this device."""
        plain = {
            "run": self.place.run,
            "round": self.round,
            "attempt": self.attempt,
            "step": self.step,
            "loss": self.loss,
        } | ({"moved": self.place.moved} if self.place.moved else {})
        groups: dict[str, Arrays] = {
            "half": self.half.state(),
            "optimizer": self.half.optimizer(),
            "begin": self.begin,
            "left": {str(leg): left for leg, left in self.exchange.left.items()},
            "left_out": {str(leg): left for leg, left in self.left_out.items()},
            "start": {"values": self.start, "grid": self.grid} if self.exchange.changes else {},
            "sent": self.sent.state() if self.sent else {},
        }
        arrays = {f"{group}/{name}": array for group, own in groups.items() for name, array in own.items()}
        state.save(self.file, plain, arrays)

    def _restore(self) -> None:
        """Load the state of this device, unless it is of another run, or of before its cut was moved."""
        found = state.load(self.file)
        if found is None or found[0].get("run") != self.place.run:
            return
        if found[0].get("moved", 0) != self.place.moved:
            return
        plain, arrays = found
        groups: dict[str, Arrays] = {
            key: {} for key in ("half", "optimizer", "begin", "left", "left_out", "start", "sent")
        }
        for name, array in arrays.items():
            group, _, inner = name.partition("/")
            groups[group][inner] = array
        if not self.half.restore(groups["half"]):
            return
        self.half.put_optimizer(groups["optimizer"])
        if self.sent:
            self.sent.restore(groups["sent"])
        self.begin = groups["begin"]
        self.exchange.remember(_legs(groups["left"]))
        self.left_out = _legs(groups["left_out"])
        self.start = groups["start"].get("values", self.start)
        self.grid = groups["start"].get("grid", self.grid)
        self.round, self.attempt = int(plain["round"]), int(plain["attempt"])
        self.step, self.loss = int(plain["step"]), float(plain["loss"])


def _legs(arrays: Arrays) -> Memory:
    return {int(leg): left for leg, left in arrays.items()}
