"""A device's life at a served job, whatever runs its part of the model: rounds, steps, faults, and what it writes down.

A device that dies goes on where its state file says: trained values, optimiser, what a quantizer remembers, and the
place in the round. Written after every step, nothing is ever lost. Written less often, or once a round, a device that
dies in between may find the server further on: it then sits that round out, and goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from sflam.codec.bodies import encode
from sflam.codec.legs import DOWN, HEAD_DOWN, HEAD_UP, UP
from sflam.codec.messages import AdapterFrame, GradientFrame, StepFrame, TokenFrame
from sflam.data.batches import round_batches
from sflam.data.sampling import batches_of_shares
from sflam.errors import BrokenOff, Refused, WireError
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.link import state
from sflam.link.contract import shares_of
from sflam.link.exchange import Memory, TokenExchange, opened
from sflam.link.half import Arrays, Half, LocalStep, X
from sflam.link.https_client import Link
from sflam.seeds import derive
from sflam.sizes import HEADER_BYTES, adapter_body_bytes


@dataclass(frozen=True, eq=False)
class Place:
    """A device's samples and its place in the fleet.

    Attributes:
        number: of the device.
        run: name of the run.
        seed: of the run.
        own: which samples of its dataset it trains on, int64 [n].
        sampling: ``data.sampling``.
        text: whether rows may differ in length, so that every step announces its tokens.
    """

    number: int
    run: str
    seed: int
    own: NDArray[np.int64]
    sampling: str = "local"
    text: bool = False


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
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.link, self.place, self.half, self.learn, self.exchange = link, place, half, learn, exchange
        self.file, self.state_every, self.notify = file, state_every, notify
        self.round = self.attempt = -1
        self.step = 0
        self.loss = 0.0
        self.begin: Arrays = {}
        """What the optimiser remembered when the round began, with ``learn.state = "keep"``."""
        self.left_out: Memory = {}
        """What the quantizer had left out when the round began."""
        self._restore()

    def run(self) -> int:
        """Take part until the run ends; return the number of rounds trained.

        Raises:
            ServeError: the server cannot be reached any more, or refuses this device for good.
        """
        rounds, after, unknown = 0, -1, True
        while True:
            if unknown:
                self._hello()
            now = self.link.json("GET", f"/v1/round?after={after}" if after >= 0 else "/v1/round")
            unknown = not now["known"]
            if now["phase"] == "ended":
                return rounds
            if now["phase"] != "open" or not now["seated"] or now["delivered"] or unknown:
                after = max(after, int(now["attempt"])) if now["phase"] == "open" else max(after, 0)
                continue
            try:
                up, down = map(int, now.get("bits", self.exchange.bits))
                self.exchange = self.exchange.with_bits(up, down)
                rounds += self._round(now, int(now["round"]), int(now["attempt"]), int(now["exchange"]))
            except Refused as refused:
                if refused.status != 409:
                    raise
                self.notify(f"round {now['round'] + 1}: {refused}")
            after = int(now["attempt"])

    def _hello(self) -> None:
        """Let the server know of this device, now or when the round it is missed in is over."""
        try:
            self.link.json("POST", "/v1/session", {"samples": len(self.place.own)})
        except Refused as refused:
            if refused.status != 409:
                raise
            self.notify(str(refused))
            self.link.sleep(1.0)

    def _round(self, now: dict[str, Any], round: int, attempt: int, exchange: int) -> bool:
        """Take part in an open round, from its start or from where this device is; return whether it delivered.

        ``now`` is what the server reported of the round.
        """
        batches = self._batches(now, round)
        at = f"/v1/rounds/{round}/{attempt}"
        if (self.round, self.attempt) != (round, attempt):
            if exchange:
                self.notify(f"round {round + 1} goes on without this device, which has lost its part of it")
                return False
            most = adapter_body_bytes(self.half.trained, 64)
            self._open(round, attempt, self.link.call("GET", f"{at}/adapters", most=most))
        while self.step < len(batches):
            if len(batches[self.step]):
                self._train(at, batches[self.step], len(batches))
            self.step += 1
            if self.step == len(batches) or (self.state_every and self.step % self.state_every == 0):
                self._save()
        self._deliver(at, round, batches)
        return True

    def _batches(self, now: dict[str, Any], round: int) -> list[NDArray[np.int64]]:
        """Return the samples of every step of a round; where the server draws shares, none in some steps, perhaps."""
        place, learn = self.place, self.learn
        steps, epochs = learn.local_steps, learn.local_epochs
        if place.sampling == "local":
            return round_batches(
                place.own,
                learn.batch,
                seed=place.seed,
                round=round,
                device=place.number,
                steps=steps,
                epochs=epochs,
                lengths=self.half.lengths,
            )
        shares = np.array(shares_of(now.get("shares"), len(place.own), steps, epochs), np.int64)
        return batches_of_shares(place.own, shares, seed=place.seed, round=round, device=place.number)

    def _open(self, round: int, attempt: int, body: bytes) -> None:
        """Begin a round from the global adapters in ``body``."""
        half, again = self.half, round == self.round
        if half.trained:
            start = _adapters(body, half.trained)
            half.write(start)
            half.begin(start)
        if self.learn.practice.state == "keep":
            if again:  # the optimiser goes back as well
                half.put_optimizer(self.begin)
            self.begin = half.optimizer()
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
        now = LocalStep(self.round, self.step, seed, derive(seed, "head"), rate(self.learn, moment))
        memory = self.exchange.memory()
        while True:
            try:
                loss, rows = self._exchanges(f"{at}/steps/{self.step}", indices, now)
                break
            except BrokenOff as lost:
                self.notify(f"{lost}; this step is made again")
                self.exchange.remember(memory)
        self.loss += loss * rows

    def _exchanges(self, path: str, indices: NDArray[np.int64], now: LocalStep) -> tuple[float, int]:
        """Run a step; return its mean loss and its rows."""
        half, exchange = self.half, self.exchange
        taken = half.take(indices)
        number, tokens = self.place.number, taken.tokens
        sent = exchange.outgoing(
            now.round,
            now.step,
            UP,
            tokens,
            lambda packed: StepFrame(
                now.round, now.step, number, packed, taken.rows, taken.lengths, taken.labels
            ),
        )
        half.forward(now, sent)
        headers = {"Sflam-Tokens": str(tokens)} if self.place.text else {}
        most = HEADER_BYTES + 12 * tokens * half.dim  # 64 bits a value, and its token's side
        if not half.has_head:
            answer = opened(self.link.call("POST", path, sent.body(), headers, most=most), GradientFrame)
            gradient = answer.gradient
            half.backward(now, None if gradient is None else exchange.incoming(gradient, DOWN, tokens))
            return answer.loss, taken.rows
        found = opened(self.link.call("POST", f"{path}/forward", sent.body(), headers, most=most), TokenFrame)
        sent = exchange.outgoing(
            now.round,
            now.step,
            HEAD_UP,
            tokens,
            lambda packed: TokenFrame(now.round, now.step, number, packed),
        )
        loss = half.finish(now, exchange.incoming(found.tokens, HEAD_DOWN, tokens), sent)
        body = self.link.call("POST", f"{path}/backward", sent.body(), headers, most=most)
        back = opened(body, TokenFrame).tokens if body else None  # empty where nothing below the cut trains
        half.backward(now, None if back is None else exchange.incoming(back, DOWN, tokens))
        return loss, taken.rows

    def _deliver(self, at: str, round: int, batches: Sequence[NDArray[Any]]) -> None:
        """Send what was trained."""
        samples = sum(map(len, batches))
        body = b""
        if self.half.trained:
            body = encode(AdapterFrame(round, self.place.number, samples=samples, values=self.half.read()))
        mean = self.loss / max(1, samples)
        headers = {"Sflam-Loss": repr(mean)} if self.half.has_head else {}
        self.link.call("PUT", f"{at}/adapters", body, headers)
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
        }
        groups: dict[str, Arrays] = {
            "half": self.half.state(),
            "optimizer": self.half.optimizer(),
            "begin": self.begin,
            "left": {str(leg): left for leg, left in self.exchange.left.items()},
            "left_out": {str(leg): left for leg, left in self.left_out.items()},
        }
        arrays = {f"{group}/{name}": array for group, own in groups.items() for name, array in own.items()}
        state.save(self.file, plain, arrays)

    def _restore(self) -> None:
        """Load the state of this device, unless it is of another run."""
        found = state.load(self.file)
        if found is None or found[0].get("run") != self.place.run:
            return
        plain, arrays = found
        groups: dict[str, Arrays] = {key: {} for key in ("half", "optimizer", "begin", "left", "left_out")}
        for name, array in arrays.items():
            group, _, inner = name.partition("/")
            groups[group][inner] = array
        if not self.half.restore(groups["half"]):
            return
        self.half.put_optimizer(groups["optimizer"])
        self.begin = groups["begin"]
        self.exchange.remember(_legs(groups["left"]))
        self.left_out = _legs(groups["left_out"])
        self.round, self.attempt = int(plain["round"]), int(plain["attempt"])
        self.step, self.loss = int(plain["step"]), float(plain["loss"])


def _adapters(body: bytes, count: int) -> NDArray[Any]:
    """Return the adapters [P] that a body carries; raises WireError where there are not ``count``."""
    values = opened(body, AdapterFrame).values
    if values.shape != (count,):
        raise WireError(f"{len(values)} adapter values came; {count} were agreed: restart the round")
    return values


def _legs(arrays: Arrays) -> Memory:
    return {int(leg): left for leg, left in arrays.items()}
