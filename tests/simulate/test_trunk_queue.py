"""The trunk on the virtual clock: who is in which group, when each is answered, and what has been spent, by hand."""

from __future__ import annotations

import pytest

from sflam.simulate.arrivals import COLUMNS
from sflam.simulate.step_cycle import DONE, StepCycle, spent_since
from sflam.simulate.trunk_queue import TrunkQueue


def cycle_of(device, *, up, turn, down, steps=2, fetch=1.0, hand=1.0, begun=0.0):
    """Return a cycle whose steps compute nothing, send for ``up`` s, and receive for ``down`` s."""
    cost = dict.fromkeys(COLUMNS, 0.0) | {
        "up_s": up * steps,
        "down_s": down * steps,
        "adapters": fetch + hand,
        "fetch_s": fetch,
        "transmit_j": 8.0,
        "adapter_j": 3.0,
        "receive_j": 6.0,
        "fetch_j": 2.0,
        "static_w": 0.5,
        "server_j": 10.0,
    }
    shares = ((0.5, 1 / steps, 1 / steps, 0.5),) * steps
    return StepCycle(
        device=device,
        number=0,
        version=0,
        begun=begun,
        cost=cost,
        shares=shares,
        turns=(turn,) * steps,
        since=begun,
        paid={},
    )


def queue_of(*cycles, one_by_one=False):
    """Return a queue, and what it makes: (its clock, [(device, step), ...]) of every group."""
    made = []
    queue = TrunkQueue(
        one_by_one=one_by_one,
        step=lambda group: made.append((queue.clock, [(cycle.device, cycle.step) for cycle in group])),
    )
    queue.under_way = {cycle.device: cycle for cycle in cycles}
    return queue, made


def test_the_trunk_takes_what_is_there_when_it_is_free():
    """Device 0 comes at 3, is computed until 7; 2 comes at 4 and 1 at 5, and both wait until then, for 4 s each."""
    queue, made = queue_of(
        cycle_of(0, up=2.0, turn=4.0, down=1.0),
        cycle_of(1, up=4.0, turn=4.0, down=1.0),
        cycle_of(2, up=3.0, turn=4.0, down=1.0),
    )
    (first,) = queue.next()
    # 0 comes again at 7 + 1 + 2 = 10, is computed from 15 to 19; 1 and 2, answered at 15, come at 20 and 19
    assert made == [(7.0, [(0, 0)]), (15.0, [(1, 0), (2, 0)]), (19.0, [(0, 1)])]
    assert (first.device, first.phase, first.ends) == (0, DONE, 21.0)
    assert first.cost["server_s"] == pytest.approx(4.0 + 9.0) and first.ends == pytest.approx(
        first.begun + first.steps_s + first.cost["adapters"]
    )
    (second,) = queue.next()  # 2 came at 15 + 1 + 3 = 19, when the trunk was free; 1 waits from 20 to 23
    assert made[3:] == [(23.0, [(2, 1)])] and (second.device, second.ends) == (2, 25.0)
    (third,) = queue.next()
    assert made[4:] == [(27.0, [(1, 1)])] and (third.device, third.ends) == (1, 29.0)
    assert not queue.under_way


def test_steps_a_frame_are_in_the_order_of_arrival():
    cycles = {0: 4.0, 1: 2.0, 2: 3.0, 3: 3.0}
    queue, made = queue_of(
        *(cycle_of(device, up=up, turn=5.0, down=1.0, steps=1) for device, up in cycles.items()),
        one_by_one=True,
    )
    while queue.under_way:
        queue.next()
    assert [group for _, group in made] == [[(1, 0)], [(2, 0), (3, 0), (0, 0)]]


def test_what_is_spent_of_a_cycle_by_hand():
    """Fetching until 1, sending until 3, at the trunk until 7, receiving until 8, and a second step."""
    queue, _ = queue_of(cycle_of(0, up=2.0, turn=4.0, down=1.0))
    cycle = queue.under_way[0]
    half = cycle.spent(2.0)  # of the second it has sent a half
    assert (half["receive_j"], half["transmit_j"], half["adapter_j"], half["server_j"]) == (2, 2, 0, 0)
    assert half["idle_j"] == 1.0
    part = spent_since([cycle], 2.0)
    assert (float(part.transmit_j[0]), float(part.idle_j[0])) == (2, 1)
    (done,) = queue.next()
    rest = spent_since([done], 99.0)
    assert done.ends == 16.0  # and static power ends with it
    assert (float(rest.transmit_j[0]), float(rest.adapter_j[0]), float(rest.receive_j[0])) == (6, 3, 4)
    assert (float(rest.server_j[0]), float(rest.idle_j[0])) == (10, 7)
    assert float(spent_since([done], 200.0).device_j[0]) == 0


def test_a_queue_that_is_put_back_goes_on_alike():
    def build():
        return queue_of(*(cycle_of(d, up=1.0 + d, turn=4.0, down=1.0) for d in range(3)))

    (whole, made), (stopped, before) = build(), build()
    whole.next()
    stopped.next()
    again, after = queue_of()
    again.restore(stopped.state())
    ends: list[list[tuple[int, float]]] = []
    for one in (whole, again):
        ends.append([])
        while one.under_way:
            ends[-1] += [(cycle.device, cycle.ends) for cycle in one.next()]
    assert ends[0] == ends[1] and len(ends[0]) == 2 and made == before + after
