"""A device over a network: it downloads its part of the model and trains it on its own data.

Before every request that could change the server it saves its state: adapters, optimiser state and step, in one file
that is whole or absent. After a crash it loads that file, asks for the state of the round and continues.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sflam.codec.bodies import encode
from sflam.codec.messages import GradientFrame, TokenFrame
from sflam.data.sampling import batches_of_shares
from sflam.errors import Refused
from sflam.learn import checkpoint
from sflam.learn.adapter_exchange import flatten, receive_adapters, send_adapters, unflatten
from sflam.learn.device import Devices
from sflam.learn.examples import Examples, Minibatch, drawn
from sflam.learn.exchange import HEAD_UP, Exchange, Position, opened
from sflam.learn.local.registry import local_rule
from sflam.learn.schedule import Moment
from sflam.learn.settings import LearnSettings
from sflam.link.contract import shares_of
from sflam.link.https_client import Link
from sflam.model.split import DeviceSegment
from sflam.seeds import derive
from sflam.sizes import HEADER_BYTES, adapter_body_bytes

ROW = 0
"""The one row of the stack that holds this device's adapters."""


@dataclass(frozen=True, eq=False)
class Place:
    """A device's samples and its place in the fleet.

    Attributes:
        number: of the device.
        run: name of the run.
        cut: blocks it keeps.
        seed: of the run.
        task: what the loss is.
        examples: its samples, bound to its part of the model.
        own: which of them it trains on, int64 [n].
        sampling: ``data.sampling``.
    """

    number: int
    run: str
    cut: int
    seed: int
    task: str
    examples: Examples
    own: NDArray[np.int64]
    sampling: str = "local"


class Client:
    """One device and its round.

    Args:
        link: the way to the server.
        place: what it brings.
        segment: its part of the model, one row.
        learn: how a round is run.
        exchange: how what crosses the cut becomes bytes.
        folder: where it saves its state.
        notify: shows a line to the user of the device.
    """

    def __init__(
        self,
        link: Link,
        place: Place,
        segment: DeviceSegment,
        learn: LearnSettings,
        exchange: Exchange,
        folder: Path,
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.link, self.place, self.learn, self.exchange = link, place, learn, exchange
        self.folder, self.notify = folder, notify
        self.devices = Devices(segment, (place.cut,), learn)
        self.names = segment.names(place.cut)
        self.rule = local_rule(learn, "local", place.examples, {ROW: place.own})
        self.devices.follow(self.rule, {ROW: (ROW, self.names)} if self.names else {})
        self.start: torch.Tensor | None = None
        self.where = next(segment.parameters()).device
        self.round = self.attempt = -1
        self.step = 0
        self.loss = 0.0
        self.begin: dict[str, Any] = {}
        self.left_out: dict[int, Any] = {}
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
                up, down = now.get("bits", self.exchange.bits[self.place.number])
                self.exchange = self.exchange.with_bits({self.place.number: (int(up), int(down))})
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
            most = adapter_body_bytes(self.devices.segment.stack.size(self.names), 64)
            self._open(round, attempt, self.link.call("GET", f"{at}/adapters", most=most))
        while self.step < len(batches):
            if len(batches[self.step]):
                self._train(at, round, self.place.examples.take(batches[self.step]), len(batches))
            self.step += 1
            self._save()
        self._deliver(at, round, batches)
        return True

    def _batches(self, now: dict[str, Any], round: int) -> list[NDArray[Any]]:
        """Return the samples of every step of a round; where the server draws shares, none in some steps, perhaps."""
        place, learn = self.place, self.learn
        if place.sampling == "local":
            return drawn(learn, place.examples, place.own, place.seed, round, place.number)
        shares = shares_of(now.get("shares"), len(place.own), learn.local_steps, learn.local_epochs)
        own = np.array(shares, np.int64)
        return batches_of_shares(place.own, own, seed=place.seed, round=round, device=place.number)

    def _open(self, round: int, attempt: int, body: bytes) -> None:
        """Begin a round from the global adapters in ``body``."""
        stack = self.devices.segment.stack
        if self.names:
            own = stack.read(ROW)
            start = receive_adapters(body, flatten(own, self.names))
            stack.write(ROW, unflatten(start, own, self.names))
            self._begin(start)
        if self.learn.practice.state == "keep":
            if round == self.round and self.begin:  # the same round again: the optimiser goes back as well
                self.devices.restore(copy.deepcopy(self.begin))
            elif round == self.round:
                self.devices.optimizer.state.clear()
            self.begin = copy.deepcopy(self.devices.state())
        if round == self.round:
            self.exchange.remember(self.left_out)
        self.left_out = self.exchange.memory()
        self.devices.open()
        self.round, self.attempt, self.step, self.loss = round, attempt, 0, 0.0
        self._save()

    def _begin(self, start: torch.Tensor) -> None:
        """Note where a round begins, [P]."""
        self.start = start
        self.rule.begin(unflatten(start, self.devices.segment.stack.read(ROW), self.names))

    def _train(self, at: str, round: int, batch: Minibatch, steps: int) -> None:
        """Make one step of ``steps`` in the round."""
        place = self.place
        position = Position(round, self.step, place.number)
        seed = derive(place.seed, "dropout", round, self.step, place.number)
        self.devices.pace({ROW: Moment(round, self.step, steps)})
        hidden = self.devices.forward({ROW: batch}, {ROW: seed})[ROW]
        at_home = self.devices.segment.has_head
        body = encode(self.exchange.step_message(position, hidden, batch, labels=not at_home))
        tokens = hidden.shape[0] * hidden.shape[1] if batch.lengths is None else int(batch.lengths.sum())
        headers = {"Sflam-Tokens": str(tokens)} if "input_ids" in batch.inputs else {}
        path = f"{at}/steps/{self.step}"
        most = HEADER_BYTES + 12 * hidden.numel()  # 64 bits a value, and its token's side
        rows, lengths = len(batch), batch.lengths
        if not at_home:
            answered = opened(self.link.call("POST", path, body, headers, most=most), GradientFrame)
            answer = self.exchange.receive_answer(answered, rows, lengths, self.where)
            self.loss += answer.loss * rows
            self.devices.backward({} if answer.gradient is None else {ROW: answer.gradient}, {ROW: batch})
            return
        found = opened(self.link.call("POST", f"{path}/forward", body, headers, most=most), TokenFrame).tokens
        last = self.exchange.receive_tokens(found, rows, lengths, self.where)
        loss, gradient = self.devices.finish(
            place.task, {ROW: batch}, {ROW: last}, {ROW: derive(seed, "head")}
        )[ROW]
        self.loss += loss * rows
        body = encode(self.exchange.token_message(position, HEAD_UP, gradient, lengths))
        body = self.link.call("POST", f"{path}/backward", body, headers, most=most)
        back = {}
        if body:  # empty where nothing below the cut trains
            back[ROW] = self.exchange.receive_tokens(
                opened(body, TokenFrame).tokens, rows, lengths, self.where
            )
        self.devices.backward(back, {ROW: batch})

    def _deliver(self, at: str, round: int, batches: Sequence[NDArray[Any]]) -> None:
        """Send what was trained."""
        samples = sum(map(len, batches))
        body = b""
        if self.names:
            own = self.devices.segment.stack.read(ROW)
            body = send_adapters(round, self.place.number, samples, flatten(own, self.names))
        mean = self.loss / max(1, samples)
        headers = {"Sflam-Loss": repr(mean)} if self.devices.segment.has_head else {}
        self.link.call("PUT", f"{at}/adapters", body, headers)
        steps = sum(map(bool, map(len, batches)))
        self.notify(f"round {round + 1}: {steps} steps, loss {mean:.4f}")

    def _save(self) -> None:
        """Save the state of this device."""
        checkpoint.save(
            self.folder,
            {
                "run": self.place.run,
                "round": self.round,
                "attempt": self.attempt,
                "step": self.step,
                "loss": self.loss,
                "adapters": self.devices.segment.stack.values.detach()[ROW],
                "optimizer": self.devices.state(),
                "begin": self.begin,
                "left_out": [self.left_out, self.exchange.memory()],
                "start": self.start if self.rule.acts else None,
            },
        )

    def _restore(self) -> None:
        """Load the state of this device, unless it is of another run."""
        saved = checkpoint.load(self.folder)
        values = self.devices.segment.stack.values
        if (
            saved is None
            or saved.get("run") != self.place.run
            or saved["adapters"].shape != values[ROW].shape
        ):
            return
        with torch.no_grad():
            values[ROW] = saved["adapters"].to(values)
        self.devices.restore(saved["optimizer"])
        self.begin = saved["begin"]
        self.left_out, now = saved["left_out"]
        self.exchange.remember(now)
        if saved.get("start") is not None:
            self._begin(saved["start"].to(values))
        self.round, self.attempt = int(saved["round"]), int(saved["attempt"])
        self.step, self.loss = int(saved["step"]), float(saved["loss"])
