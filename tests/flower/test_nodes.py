"""Calling nodes and taking their replies, on a grid of this test: who comes, who fails and why, what comes too late."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip(
    "flwr", reason="needs an environment made with constraints-flower.txt and the extra flower"
)

import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, FedProx
from flwr.supercore.task_identity import TaskIdentity

from sflam.errors import Refused, ServeError
from sflam.flower import nodes
from sflam.flower.node_places import NodePlaces
from sflam.flower.nodes import NodeSummons
from sflam.flower.records import ADAPTERS, ORDER, REPORT, body_of, body_record
from sflam.flower.round_order import RoundOrder, order_from

STATE = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
SOME = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


class Grid:
    """Nodes that answer when the test says so; a message to a node in ``deaf`` is not taken."""

    def __init__(self, *here, deaf=()):
        self.here, self.deaf, self.sent, self.replies = list(here), deaf, {}, []

    def get_node_ids(self):
        return self.here

    def push_messages(self, messages):
        numbers = []
        for message in messages:
            node = message.metadata.dst_node_id
            number = None if node in self.deaf else f"message-{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = number or ""
            if number:
                self.sent[number] = message
            numbers.append(number)
        return numbers

    def pull_messages(self, numbers):
        found = [reply for reply in self.replies if reply.metadata.reply_to_message_id in set(numbers)]
        self.replies = [reply for reply in self.replies if reply not in found]
        return found

    def to(self, node):
        """Return the last message to a node."""
        return next(each for each in reversed(self.sent.values()) if each.metadata.dst_node_id == node)

    def answer(self, node, body, **beside):
        report = ConfigRecord({"round": "0", "attempt": "1", **beside})
        self.replies.append(
            Message(RecordDict({ADAPTERS: body_record(body), REPORT: report}), reply_to=self.to(node))
        )


class Site:
    """Summons over a grid, and what it gave the round."""

    def __init__(self, folder, grid, strategy, monkeypatch, devices=2):
        self.taken, self.dropped, self.left, self.refuses = [], [], [], None
        session = SimpleNamespace(leave=self.left.append)
        dispatch = SimpleNamespace(
            stopping=False,
            drop=lambda device, reason: self.dropped.append(device),
            locked=lambda: nullcontext(session),
        )
        contract = SimpleNamespace(adapters=3, delivered_bytes=lambda: 3)
        ingress = SimpleNamespace(
            dispatch=dispatch,
            contracts=dict.fromkeys(range(devices), contract),
            event_log=lambda *a, **k: None,
        )
        monkeypatch.setattr(nodes, "LOOK", 0.01)
        monkeypatch.setattr(nodes, "hand_over_message", self.take)
        self.summons = NodeSummons(
            grid, strategy, NodePlaces(folder / "nodes.json", devices), ingress,
            order=lambda device, node, round: RoundOrder("here:1", "", f"sflam_{device}", round),
            bodies=lambda round, devices, state: {device: bytes([device, round]) for device in devices},
            names=["a", "b"], gather=0.0, fewest=1,
        )  # fmt: skip
        self.summons.begin(0, STATE)

    def take(self, ingress, device, round, attempt, body, headers):
        if self.refuses:
            raise self.refuses
        self.taken.append((device, round, attempt, body))

    def look(self):
        """Take what has come, as the thread would."""
        self.summons.close()
        for reply in self.summons.grid.pull_messages(list(self.summons._waiting)):
            self.summons._take(self.summons._waiting.pop(reply.metadata.reply_to_message_id), reply)


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """A process of a run, as messages want one."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)


@pytest.fixture
def site(tmp_path, monkeypatch):
    return lambda grid, strategy=None, **more: Site(
        tmp_path, grid, strategy or FedAvg(**SOME), monkeypatch, **more
    )


def test_every_node_gets_its_own_order_and_adapters(site):
    grid = Grid(50, 40)
    summons = site(grid).summons
    summons.call(())
    summons.close()
    assert summons.called() == (0, 1)
    for node, device in ((40, 0), (50, 1)):
        content = grid.to(node).content
        assert order_from(content[ORDER]).token == f"sflam_{device}"
        assert body_of(content[ADAPTERS], 2) == bytes([device, 0])


def test_who_sits_out_is_not_called_and_nodes_beyond_the_places_wait(site):
    grid = Grid(1, 2, 3)
    summons = site(grid).summons
    summons.call((0,))
    summons.close()
    assert summons.called() == (1,) and [m.metadata.dst_node_id for m in grid.sent.values()] == [2]


def test_a_reply_goes_to_the_round_and_its_device_is_away(site):
    grid = Grid(1, 2)
    one = site(grid)
    one.summons.call(())
    grid.answer(2, b"abc")
    one.look()
    assert one.taken == [(1, 0, 1, b"abc")] and one.left == [1] and one.summons.called() == (0, 1)
    assert one.summons.replies.keys() == {1} and not one.dropped


@pytest.mark.parametrize("what", ["error", "long", "report", "refused", "record"])
def test_a_reply_of_no_use_leaves_the_device_out(site, what):
    grid = Grid(1, 2)
    one = site(grid)
    one.summons.call(())
    if what == "error":
        grid.replies.append(Message(Error(3, "no such file"), reply_to=grid.to(2)))
    elif what == "record":
        grid.replies.append(Message(RecordDict(), reply_to=grid.to(2)))
    else:
        one.refuses = Refused(409, "not open") if what == "refused" else None
        grid.answer(2, bytes(1000 if what == "long" else 3), **({"round": "one"} if what == "report" else {}))
    one.look()
    assert one.taken == [] and one.dropped == one.left == [1] and one.summons.called() == (0,)


def test_with_nobody_left_there_is_one_error_with_every_reason(site):
    grid = Grid(1, 2, deaf=(1,))
    one = site(grid)
    one.summons.call(())
    grid.replies.append(Message(Error(3, "no such file"), reply_to=grid.to(2)))
    one.look()
    with pytest.raises(
        ServeError, match=r"did not take the message .*; device 1: its node failed: no such file"
    ):
        one.summons.called()


def test_a_reply_to_a_call_before_comes_too_late(site):
    grid = Grid(1)
    one = site(grid, devices=1)
    one.summons.call(())
    first = grid.to(1)
    one.summons.call(())
    grid.replies.append(Message(Error(3, "gone"), reply_to=first))
    one.look()
    assert one.summons.called() == (0,) and not one.dropped


def test_a_strategy_that_wants_more_of_nodes_or_nobody_is_refused(site):
    with pytest.raises(ServeError, match="FedProx wants nodes to follow proximal-mu"):
        site(Grid(1), FedProx(**SOME, proximal_mu=0.1), devices=1).summons.call(())
    none = FedAvg(fraction_train=0.0, fraction_evaluate=0.0)
    with pytest.raises(ServeError, match="FedAvg chose no node of 1; raise its fraction_train"):
        site(Grid(1), none, devices=1).summons.call(())


def test_a_superlink_that_does_not_answer_holds_up_nobody_who_asks_who_comes(site, monkeypatch):
    """Replies are asked for as long as Flower tries; a server that is to stop looks at who comes meanwhile."""
    grid, asked, answer = Grid(1), threading.Event(), threading.Event()
    monkeypatch.setattr(grid, "pull_messages", lambda numbers: (asked.set(), answer.wait(20), [])[-1])
    summons = site(grid, devices=1).summons
    summons.call(())
    assert asked.wait(10)
    found = []
    asking = threading.Thread(target=lambda: found.append(summons.called()), daemon=True)
    asking.start()
    asking.join(5)
    answer.set()
    summons.close()
    assert found == [(0,)]
