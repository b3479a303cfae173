"""Which server a device has before each round: by orders, by a plan of what was measured; the moves on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sflam.errors import Refused, ServeError
from sflam.learn.settings.association import AssociationSettings
from sflam.link.operator import request_of
from sflam.planner.served_servers import ServedServers
from sflam.report.terminal.devices_table import devices_table
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.operation import RunOperation
from sflam.serve.orders import Orders
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.trunks.association import Association
from tests.planner.served_worlds import World

HOMES = (0, 1, 1)
SLOW = World(np.ones(3), np.zeros((3, 2)), np.array([0.01, 0.1]), np.array([10, 20, 10]))
"""Server 1 takes ten times the seconds of server 0."""


def measured(file=None, records=(), keep=2):
    settings = AssociationSettings(mode="measured", keep_rounds=keep)
    return Association(HOMES, ServedServers(settings, set(HOMES)), file, records)


def shown(moves):
    return [(move.device, move.before, move.server, move.why) for move in moves]


def test_orders_move_a_device_until_it_is_released():
    servers = Association(HOMES)
    assert servers.in_force == HOMES and servers.servers == (0, 1)
    assert shown(servers.decide(0, {2: 0})) == [(2, 1, 0, "ordered")]
    assert servers.decide(1, {2: 0}) == () and servers.in_force == (0, 1, 0)
    assert shown(servers.decide(1, {})) == []  # that round is decided
    assert shown(servers.decide(2, {})) == [(2, 0, 1, "released")]
    assert servers.decide(3, {}) == () and servers.in_force == HOMES
    assert servers.decide(4, {1: 7, 9: 0}) == ()  # orders of the job before


def test_a_plan_moves_devices_once_rounds_have_shown_what_they_take():
    records = []
    servers, course = measured(records=records), []
    for round in range(5):
        moves = servers.decide(round, {})
        course.append((servers.in_force, [move.why for move in moves]))
        records.append(SLOW.record(round, servers.in_force))
    assert course == [(HOMES, []), (HOMES, []), ((0, 0, 0), ["measured"] * 2), *[((0, 0, 0), [])] * 2]
    assert servers.moves[0].reason == "the round is shorter by it: a round of 1.4 s instead of 4 s"


def test_what_is_ordered_is_not_planned_and_stays_when_it_is_released():
    records = []
    servers = measured(records=records)
    for round in range(4):
        servers.decide(round, {2: 1})
        records.append(SLOW.record(round, servers.in_force))
    assert servers.in_force == (0, 0, 1)
    servers.decide(4, {})
    assert servers.in_force == (0, 0, 0) and servers.moves[-1].why == "measured"
    assert shown(servers.decide(5, {1: 1})) == [(1, 0, 1, "ordered")]
    records.append(SLOW.record(5, servers.in_force))
    assert servers.decide(6, {}) == ()  # it is at server 1 until a plan is due
    assert shown(servers.decide(7, {})) == [(1, 1, 0, "measured")]


def test_while_a_trunk_server_is_away_orders_alone_move_devices():
    records = [SLOW.record(round, HOMES) for round in range(4)]
    servers = measured(records=records)
    servers.all_here = lambda: False
    assert shown(servers.decide(4, {0: 1})) == [(0, 0, 1, "ordered")]
    servers.all_here = lambda: True
    assert servers.decide(5, {0: 1}) == ()  # the order's own association is measured first
    assert {move.why for move in servers.decide(6, {0: 1})} == {"measured"}


def test_a_coordinator_that_was_killed_has_the_same_servers_and_one_that_goes_back_forgets(tmp_path):
    file = tmp_path / "association.json"
    records = [SLOW.record(round, HOMES) for round in range(2)]
    first = measured(file, records)
    moves = first.decide(2, {})
    assert first.in_force == (0, 0, 0)
    again = measured(file, list(records))
    assert again.in_force == first.in_force and again.moved(1) == 1
    assert again.decide(2, {0: 1}) == moves  # what came since is of the next round
    assert [move.device for move in again.decide(3, {0: 1})] == [0]
    back = measured(file, records[:1])
    assert back.in_force == HOMES and json.loads(file.read_text())["moves"] == []


MOVE = '{"decided": 0, "moves": [{"round": 0, "device": %d, "before": 0, "server": %d, "why": "ordered"}]}'


@pytest.mark.parametrize("text", ["", "[]", '{"decided": 1e999, "moves": []}', MOVE % (5, 0), MOVE % (0, 2)])
def test_moves_that_cannot_be_read_are_one_line(tmp_path, text):
    (tmp_path / "association.json").write_text(text)
    with pytest.raises(
        ServeError, match=r"association\.json holds no moves of servers .*; put the right one back"
    ):
        measured(tmp_path / "association.json")


def test_what_an_operator_may_order(tmp_path):
    roster = Roster(tmp_path / "devices.json")
    for name in ("a", "b", "c", "d"):
        roster.enrol(name)
    orders = Orders(None, roster, 3)
    operation = RunOperation(Dispatch(Session(1)), roster, orders, EventLog(), 3)
    with pytest.raises(Refused, match=r'association\.mode = "ordered"'):
        operation.server("alice", ["a"], 1)
    operation.association = Association(HOMES)
    assert operation.server("alice", ["a", "c"], 1) == "a, c: at server 1 from the next round on"
    assert orders.servers_ordered() == {0: 1, 2: 1}
    assert [row["server"] for row in operation.seen()["devices"]] == [0, 1, 1, None]
    columns = devices_table(operation.seen()).columns
    assert {str(column.header): list(column.cells) for column in columns}["server"] == ["0", "1", "1", "-"]
    assert "no longer ordered" in operation.server("alice", ["c"], None)
    assert orders.servers_ordered() == {0: 1}
    for number in (2, "1", True, -1, 1.0):
        with pytest.raises(Refused, match="the servers of this job are 0, 1"):
            operation.server("alice", ["a"], number)
    with pytest.raises(Refused, match="d has no place in this job"):
        operation.server("alice", ["d"], 1)
    with pytest.raises(Refused, match="no device 'x'"):
        operation.server("alice", ["x"], 1)


def test_the_words_of_an_operator():
    assert request_of("server", ["a", "b", "1"]) == (
        "POST", "/v1/admin/server", {"names": ["a", "b"], "server": 1}
    )  # fmt: skip
    assert request_of("server", ["a", "auto"])[2] == {"names": ["a"], "server": None}
    for words in ([], ["a"], ["1"], ["a", "-1"], ["a", "edge-b"]):
        with pytest.raises(
            ServeError, match="server takes names of devices and then the number of their trunk"
        ):
            request_of("server", words)
