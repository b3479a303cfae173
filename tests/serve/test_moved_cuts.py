"""Cuts of a served run that move between rounds: what is trained is what a simulation trains that moves them so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import Refused
from sflam.link.https_client import Link
from sflam.model.adapters import state_of
from sflam.serve.dispatch import Dispatch
from sflam.serve.moving_wiring import largest_body
from sflam.serve.overload import Wish
from sflam.serve.repartition import Repartition
from sflam.serve.session import Session
from tests.learn.builders import IDENTITY, LEARN
from tests.serve.threads import Died, Rig, simulated

HOMES = (1, 2, 1)
TRACE = {1: {1: 1}, 2: {0: 0}, 3: {1: 2, 2: 0}, 4: {0: 1, 2: 1}}
"""Round -> device -> its cut from then on."""
FEW = replace(LEARN, canonical=True, local_steps=2, rounds=5)
OPTIONS = {"cuts": HOMES, "labels": "server", "quant": QuantSettings(bits_up=4, bits_down=4), "learn": FEW}
ALL = (0, 1, 2)
pytestmark = pytest.mark.usefixtures("one_thread")


class Trace:
    """Stands for the rule: it wishes what a trace orders."""

    def __init__(self):
        self.round = 0

    def note(self, record):
        self.round = record.round + 1

    def wish(self, device, cut, moves):
        to = TRACE.get(self.round, {}).get(device)
        return None if to is None else Wish(to, "memory", "by the trace")


def traced(file=None, records=()):
    return Repartition([range(cut + 1) for cut in HOMES], Trace(), file, records)


def moving(local, round):
    """Place the cuts of the trace in a simulation; return the devices of the round."""
    cuts = TRACE.get(round, {})
    local.place([replace(each, cut=cuts[each.device]) for each in local.placements if each.device in cuts])
    return ALL


def cuts_of(rounds):
    found, cuts = [], list(HOMES)
    for round in range(rounds):
        for device, cut in TRACE.get(round, {}).items():
            cuts[device] = cut
        found.append(tuple(cuts))
    return found


class Recorded(Rig):
    """A rig whose repartition reads the rounds done, as a run's does."""

    def __init__(self, folder, kind, *, file=None, **options):
        self.done = []
        super().__init__(folder, kind, cuts_moved=traced(file, self.done), **options)
        after = self.fleet.after

        def noted(record):
            self.done.append(after(record))
            return self.done[-1]

        self.fleet.after = noted


def served(folder, kind="vit", **options):
    rig = Recorded(folder, kind, **options)
    records, adapters = rig.run()
    return rig, records, adapters


PRACTICES = {
    "per device": {},
    "shared": {"trunk": "shared", "server_update": "batched"},
    "mixed": {"trunk": "shared", "server_update": "mixed"},
}


@pytest.mark.parametrize("state", ["reset", "keep"])
@pytest.mark.parametrize("practice", PRACTICES)
def test_a_served_run_whose_cuts_move_is_its_simulation(tmp_path, practice, state):
    options = OPTIONS | {"learn": replace(FEW, state=state, **PRACTICES[practice])}
    _, records, found = served(tmp_path, **options)
    assert [record.measured.cuts for record in records] == cuts_of(FEW.rounds)
    assert [{move.device: move.cut for move in record.measured.moves} for record in records] == [
        TRACE.get(round, {}) for round in range(FEW.rounds)
    ]
    _, wanted = simulated("vit", selected=moving, **options)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    _, stays = simulated("vit", **options)
    assert not all(torch.equal(found[name], stays[name]) for name in wanted)  # the moves are seen


MORE = {
    "labels on devices": {"labels": "device"},
    "texts": {"kind": "bert"},
    "ranks": {"ranks": (1, 2, 2)},
    "proximal": {"learn": replace(FEW, local="fedprox", prox=0.1)},
    "steps of the fleet": {"sampling": "global", "learn": replace(FEW, trunk="shared")},
}


@pytest.mark.parametrize("kind", MORE)
def test_so_does_every_practice_that_may_move(tmp_path, kind):
    options = OPTIONS | MORE[kind]
    model = options.pop("kind", "vit")
    _, records, found = served(tmp_path, model, **options)
    assert [record.measured.cuts for record in records] == cuts_of(FEW.rounds)
    _, wanted = simulated(model, selected=moving, **options)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def dying(where, round):
    """Return a link whose device dies once at a request of a round, after the server has answered it."""

    class Dying(Link):
        due = True

        def _once(self, method, path, body, headers):
            found = super()._once(method, path, body, headers)
            if type(self).due and where(method, path) and f"/rounds/{round}/" in path:
                type(self).due = False
                raise Died
            return found

    return Dying


DEATHS = {
    "fetched after it moved": (lambda method, path: method == "GET", 1),
    "in a step after it moved": (lambda method, path: path.endswith("/steps/1"), 1),
    "delivered before it moves": (lambda method, path: method != "GET" and path.endswith("/adapters"), 0),
    "delivered before it moves back": (
        lambda method, path: method != "GET" and path.endswith("/adapters"),
        2,
    ),
}


@pytest.mark.parametrize("state", ["reset", "keep"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_device_that_dies_around_a_move_changes_nothing(tmp_path, death, state):
    options = OPTIONS | {"learn": replace(FEW, state=state)}
    rig, _, found = served(tmp_path, links={1: dying(*DEATHS[death])}, lives=8, **options)
    _, wanted = simulated("vit", selected=moving, **options)
    assert rig.deaths == 1
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_devices_without_torch_move_as_well(tmp_path):
    options = OPTIONS | {"quant": IDENTITY, "learn": replace(FEW, state="keep")}
    _, records, found = served(tmp_path, lean=(1,), **options)
    assert [record.measured.cuts for record in records] == cuts_of(FEW.rounds)
    _, wanted = simulated("vit", selected=moving, **options)
    for name in wanted:  # NumPy rounds otherwise than torch
        assert torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-4), name


def test_an_operator_moves_a_device_and_lets_it_go(tmp_path):
    rig = None
    acts = {
        (0, "steps/1"): lambda: rig.operation.cut("alice", ["device-1"], 0),
        (2, "steps/1"): lambda: rig.operation.cut("alice", ["device-1"], None),
    }

    class Ordering(Link):
        def _once(self, method, path, body, headers):
            for (round, end), act in list(acts.items()):
                if f"/rounds/{round}/" in path and path.endswith(end):
                    del acts[round, end]
                    act()
            return super()._once(method, path, body, headers)

    cuts = Repartition([range(cut + 1) for cut in HOMES])
    rig = Rig(tmp_path, "vit", links={0: Ordering}, cuts_moved=cuts, **OPTIONS)
    rig.operation.cuts = cuts
    records, found = rig.run()
    assert [record.measured.cuts[1] for record in records] == [2, 0, 0, 2, 2]
    assert [[move.why for move in record.measured.moves] for record in records] == [
        [], ["ordered"], [], ["released"], []
    ]  # fmt: skip
    trace = {1: {1: 0}, 3: {1: 2}}

    def ordered(local, round):
        own = trace.get(round, {})
        local.place([replace(each, cut=own[each.device]) for each in local.placements if each.device in own])
        return ALL

    _, wanted = simulated("vit", selected=ordered, **OPTIONS)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for blocks, message in ((3, "device-1 may have 0 to 2 blocks"), ("1", "0 to 2"), (-1, "0 to 2")):
        with pytest.raises(Refused, match=message):
            rig.operation.cut("alice", ["device-1"], blocks)
    with pytest.raises(Refused, match="no device 'x'"):
        rig.operation.cut("alice", ["x"], 1)
    rig.operation.cuts = None
    with pytest.raises(Refused, match=r"repartition\.mode"):
        rig.operation.cut("alice", ["device-1"], 1)


def test_a_device_that_never_takes_up_its_cut_is_waited_for_for_the_patience_alone(monkeypatch):
    monkeypatch.setattr("sflam.serve.dispatch.TICK", 0.0001)
    now, session = [0.0], Session(1, patience=60.0)

    def clock():
        now[0] += 1.0
        session.heard(0, now[0])  # it asks for the round all the while
        return now[0]

    dispatch = Dispatch(session, clock=clock)
    session.hello(0, 8, 0.0)
    dispatch.wait_moved([0, 1])
    assert 60 <= now[0] < 70
    assert dispatch.moving == {1}  # which is away, and sees it when it comes


def test_a_body_may_be_as_large_as_any_cut_makes_it(tmp_path):
    rig = Rig(tmp_path, "vit", cuts_moved=Repartition([range(cut + 1) for cut in HOMES]), **OPTIONS)
    start = state_of(rig.model)
    few = {device: replace(own, adapters=1) for device, own in rig.contracts.items()}
    homes = max(own.adapter_bytes() for own in rig.contracts.values())
    rows = max(own.largest() for own in few.values())
    small = {device: replace(own, tokens=1, batch=1) for device, own in few.items()}
    assert largest_body(few, None, start) == rows
    assert largest_body(small, rig.moved, start) >= homes > largest_body(small, None, start)
    rig.server.start()
    rig.dispatch.end()
    rig.server.stop()
    rig.log.close()
