"""Cuts of a served run that move between rounds: what is trained is what a simulation trains that moves them so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.serve.overload import Wish
from sflam.serve.repartition import Repartition
from tests.learn.builders import LEARN
from tests.serve.threads import Rig, simulated

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
