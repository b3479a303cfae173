"""Adapters that come and go by messages, steps over the stream: the same rounds, with one life of a device a round.

Messages are handed over by threads here; Flower itself is in test_flower.
"""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import Refused, ServeError, WireError
from sflam.flower.message_way import MessageWay
from sflam.link.https_client import Link
from sflam.serve.handover import hand_over_message
from tests.learn.builders import IDENTITY, LEARN, assert_equal_states
from tests.serve.threads import Rig, simulated

FEW = replace(LEARN, rounds=3, local_epochs=1)
QUANT = QuantSettings(bits_up=4, bits_down=4, bits_adapters=3)


class Messages:
    """Calls every device by a message, which a thread answers as a node would.

    ``spoil`` changes the body of a reply, from round and device; None in its place is a node that fails.
    """

    def __init__(self, rig, absent=lambda round, device: False, spoil=lambda round, device, body: body):
        self.rig, self.absent, self.spoil = rig, absent, spoil
        self.round, self.threads, self.refused, self.called_for = -1, [], [], []

    def begin(self, round, state):
        self.round, self.state = round, state

    def call(self, out):
        rig = self.rig
        bodies = rig.fleet.start.bodies(self.round, list(rig.contracts), self.state)
        devices = [d for d in rig.contracts if d not in out and not self.absent(self.round, d)]
        self.coming = tuple(devices)
        self.called_for.append((self.round, self.coming))
        for device in devices:
            one = threading.Thread(target=self.node, args=(self.round, device, bodies[device]))
            self.threads.append(one)
            one.start()

    def called(self):
        return self.coming

    def node(self, round, device, body):
        rig, way = self.rig, MessageWay(round, body)
        link = Link(f"http://127.0.0.1:{rig.server.port}", rig.tokens[device], patience=60)
        client = rig.client(device, link)
        client.adapters = way
        try:
            assert client.run() == (way.trained is not None)
        finally:
            client.release()
            link.close()
        if way.trained is None:
            return
        headers = {name.lower(): value for name, value in way.headers.items()}
        try:
            hand_over_message(
                rig.ingress, device, round, way.attempt, self.spoil(round, device, way.trained), headers
            )
        except (WireError, Refused) as error:
            self.refused.append((device, str(error)))
            rig.dispatch.drop(device, "its reply cannot be used")
        with rig.dispatch.locked() as session:
            session.leave(device)


class ByMessage(Rig):
    """A server whose devices come when they are called."""

    def __init__(self, folder, kind, *, options, **summons):
        super().__init__(folder, kind, lives=4, links=dict.fromkeys(range(3), Link), **options)
        self.fleet.summons = self.messages = Messages(self, **summons)

    def live(self, number):
        return 0

    def run(self):
        found = super().run()
        for one in self.messages.threads:
            one.join(30)
            assert not one.is_alive()
        return found


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("labels", "state"), [("server", "reset"), ("device", "keep")])
def test_rounds_by_message_are_the_simulated_ones_bit_for_bit(tmp_path, labels, state):
    learn = replace(FEW, canonical=True, state=state, optimizer="adam")
    options = {"cuts": (1, 2, 1), "labels": labels, "quant": QUANT, "learn": learn}
    wanted, adapters = simulated("vit", **options)
    rig = ByMessage(tmp_path, "vit", options=options)
    records, found = rig.run()
    assert all(torch.equal(found[name], adapters[name]) for name in adapters)
    for mine, theirs in zip(records, wanted, strict=True):
        for name in ("samples", "bytes_up", "bytes_down", "adapter_bytes_up", "adapter_bytes_down"):
            assert getattr(mine, name) == getattr(theirs, name), name
    assert [called for called, _ in rig.messages.called_for] == [0, 1, 2]


def test_a_device_that_is_not_called_is_missing_for_one_round(tmp_path):
    options = {"cuts": (1, 1, 1), "labels": "server", "quant": IDENTITY, "learn": FEW}
    absent = lambda round, device: (round, device) == (1, 2)  # noqa: E731
    wanted, adapters = simulated(
        "vit", selected=lambda fleet, round: (0, 1) if round == 1 else (0, 1, 2), **options
    )
    records, found = ByMessage(tmp_path, "vit", options=options, absent=absent).run()
    assert [record.participants for record in records] == [record.participants for record in wanted]
    assert_equal_states(found, adapters, 1e-9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: body[:-1], "bytes; .* were agreed"),
        (lambda body: bytes(len(body)), "body|frame|magic|kind|round"),
    ],
)
def test_a_reply_that_is_not_what_was_agreed_is_left_out(tmp_path, change, reason):
    options = {"cuts": (1, 1, 1), "labels": "server", "quant": IDENTITY, "learn": replace(FEW, rounds=1)}
    spoil = lambda round, device, body: change(body) if device == 1 else body  # noqa: E731
    rig = ByMessage(tmp_path, "vit", options=options, spoil=spoil)
    rig.dispatch.session.quorum = 2
    records, _ = rig.run()
    assert records[0].participants == (0, 2)
    [(device, why)] = rig.messages.refused
    assert device == 1 and re.search(reason, why), why


def test_a_message_for_another_round_is_refused():
    way = MessageWay(3, b"")
    with pytest.raises(ServeError, match="for round 4, and round 3 is open"):
        way.fetch(2, 1, 0)
    assert way.fetch(3, 1, 0) is None and not way.over(3) and way.over(4)
    way.deliver(3, 7, b"", {})
    assert way.over(3) and way.attempt == 7
