"""When a device has too many blocks for its memory or its time, and when it has them back; the moves on disk."""

from __future__ import annotations

import json

import pytest

from sflam.errors import ServeError
from sflam.learn.settings.repartition import RepartitionSettings
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServedRound
from sflam.serve.overload import Overload
from sflam.serve.repartition import Repartition

MB = 10**6
RULE = RepartitionSettings(mode="overload", memory_reserve=0.1, slow_factor=3.0, settle_rounds=2)
HOME, FLOOR = 4, 1
ALLOWED = [range(FLOOR, HOME + 1)] * 3


def memory(device, cut):
    """Return the bytes of a training step: 10 MB a block."""
    return 10 * MB * cut


def rule(settings=RULE):
    return Overload(settings, ALLOWED, memory, flop=lambda device, cut: 1.0 + cut)


def record(round, *, left=(None, None, None), compute=(1.0, 1.0, 1.0), without=()):
    """Return a served round of the devices that are not ``without``; each held 90 MB."""
    who = [device for device in range(3) if device not in without]
    zero = (0,) * len(who)
    return RoundRecord(
        round=round, loss=1.0, participants=tuple(who),
        measured=ServedRound(
            seconds=1.0, openings=1, server_s=0.1, finish=(1.0,) * len(who), upload_s=(0.1,) * len(who),
            away_s=(0.1,) * len(who), bytes_up=zero, bytes_down=zero, payload_up=zero, payload_down=zero, cuts=zero,
            bits_up=zero, bits_down=zero, compute_s=tuple(compute[d] for d in who), memory=(90 * MB,) * len(who),
            memory_left=tuple(left[d] for d in who), left_out=tuple(without), left_steps=(3,) * len(without),
        ),
    )  # fmt: skip


def course(rounds, settings=RULE, file=None):
    """Return the cut of device 0 before each round and after the last, and the reasons of its moves."""
    records = []
    cuts = Repartition(ALLOWED, rule(settings), file, records)
    found = []
    for round, what in enumerate([*rounds, None]):
        cuts.decide(round, {})
        found.append(cuts.cuts[0])
        if what is not None:
            records.append(record(round, **what))
    return found, [move.why for move in cuts.moves]


FULL, FREE = {"left": (1 * MB, None, None)}, {"left": (60 * MB, None, None)}
SLOW, QUICK = {"compute": (5.0, 1.0, 1.0)}, {"compute": (1.0, 1.0, 1.0)}


def test_short_of_memory_it_moves_at_once_as_far_as_the_memory_model_says():
    # 1 MB of 91 MB is free and 9.1 MB are to be: one block gives back 10 MB.
    assert course([FULL]) == ([4, 3], ["memory"])
    assert course([{"left": (0, None, None)}], RepartitionSettings(mode="overload", memory_reserve=0.25)) == (
        [4, 1],
        ["memory"],
    )
    # 9.1 MB and more are enough
    assert course([{"left": (11 * MB, None, None)}]) == ([4, 4], [])
    assert course([{}] * 3) == ([4] * 4, [])  # a device that does not know is let be


def test_it_gets_its_blocks_back_once_there_has_been_room_for_them_for_long_enough():
    assert course([FULL, FREE, FREE]) == ([4, 3, 3, 4], ["memory", "settled"])
    # 15 MB are no room for a block of 10 MB with 10.5 MB to stay free
    tight = {"left": (15 * MB, None, None)}
    assert course([FULL, tight, tight, tight])[0] == [4, 3, 3, 3, 3]
    # overloaded again it waits for twice as long
    found, why = course([FULL, FREE, FREE, FULL, FREE, FREE, FREE, FREE])
    assert found == [4, 3, 3, 4, 3, 3, 3, 3, 4] and why == ["memory", "settled"] * 2


def test_never_below_the_floor_and_never_beyond_its_own():
    assert course([FULL] * 6)[0] == [4, 3, 2, 1, 1, 1, 1]
    assert course([QUICK] * 6)[0] == [4] * 7


def test_slow_it_moves_after_some_rounds_in_a_row_as_far_as_its_flop_say():
    # 5 s where the others take 1 s: 3 s are allowed, (1 + 2) / (1 + 4) of the FLOP
    assert course([SLOW]) == ([4, 4], [])
    assert course([SLOW, QUICK, SLOW]) == ([4] * 4, [])
    assert course([SLOW, SLOW]) == ([4, 4, 2], ["time"])
    assert course([SLOW, SLOW, QUICK, QUICK]) == ([4, 4, 2, 2, 4], ["time", "settled"])
    assert course([{"compute": (100.0, 1.0, 1.0)}] * 2)[0] == [4, 4, 1]
    assert course([SLOW, SLOW, SLOW, SLOW])[0] == [4, 4, 2, 2, 1]


def test_one_that_rounds_go_on_without_has_fewer_blocks_next_time():
    late = {"without": (0,)}
    assert course([late, late]) == ([4, 4, 3], ["late"])
    assert course([late, QUICK, late]) == ([4] * 4, [])


def test_alone_nothing_is_slow():
    assert course([{"compute": (9.0, 1.0, 1.0), "without": (1, 2)}] * 3)[0] == [4] * 4


def test_orders_go_before_the_rule_and_end():
    records = []
    cuts = Repartition(ALLOWED, rule(), None, records)
    assert [move.cut for move in cuts.decide(0, {0: 2})] == [2]
    records.append(record(0, **FULL))
    assert cuts.decide(1, {0: 2}) == () and cuts.cuts == (2, 4, 4)
    assert [(move.cut, move.why) for move in cuts.decide(2, {})] == [(4, "released")]
    assert [move.cut for move in cuts.decide(3, {1: 99, 2: -1})] == [1]  # 99 is what device 1 has, its own


def test_a_server_that_was_killed_has_the_same_cuts_and_one_that_goes_back_forgets(tmp_path):
    file = tmp_path / "cuts.json"
    records = [record(0, **FULL)]
    first = Repartition(ALLOWED, rule(), file, records)
    moves = first.decide(1, {})
    assert [move.cut for move in moves] == [3]
    again = Repartition(ALLOWED, rule(), file, list(records))
    assert again.cuts == first.cuts == (3, 4, 4) and again.moved(0) == 1
    assert again.decide(1, {1: 1}) == moves  # what came since is of the next round
    assert [move.device for move in again.decide(2, {1: 1})] == [1]
    back = Repartition(ALLOWED, rule(), file, [])
    assert back.cuts == (4, 4, 4) and json.loads(file.read_text())["moves"] == []


def test_an_order_of_its_own_cut_that_ends_leaves_the_device_to_the_rule():
    records = []
    cuts = Repartition(ALLOWED, rule(), None, records)
    assert [move.cut for move in cuts.decide(0, {0: 2})] == [2]
    assert [move.cut for move in cuts.decide(1, {0: HOME})] == [HOME]
    assert cuts.decide(2, {}) == ()  # nothing is left to be given back
    records.append(record(2, **FULL))
    assert [(move.cut, move.why) for move in cuts.decide(3, {})] == [(3, "memory")]


DEEP = '{"decided": 0, "moves": [{"round": 0, "device": 0, "before": 4, "cut": %d, "why": "ordered", "detail": ""}]}'


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '{"decided": 0, "moves": [{"round": 0}]}', '{"decided": 1e999, "moves": []}', DEEP % 5,
        DEEP % -1,
    ],
)  # fmt: skip
def test_moves_that_cannot_be_read_are_one_line(tmp_path, text):
    (tmp_path / "cuts.json").write_text(text)
    with pytest.raises(ServeError, match=r"cuts\.json holds no moves of cuts .*; put the right one back"):
        Repartition(ALLOWED, None, tmp_path / "cuts.json")
