"""A device that finds another job at the same address takes that one up, and carries nothing of the first into it."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest

from sflam.errors import OtherJob, ServeError
from sflam.link.job import job_digest
from sflam.link.jobs import until_it_ends
from tests.link.test_loop import Memory, client


class Renamed(Memory):
    """A server that is another run's from some round on."""

    def __init__(self, named):
        super().__init__()
        self.named = named

    def json(self, method, path, body=None):
        return super().json(method, path, body) | self.named(self.round)


@pytest.mark.parametrize("other", [{"run": "other"}, {"run": "run", "job": "changed"}])
def test_it_leaves_before_it_sends_anything_to_the_other(tmp_path, other):
    server = Renamed(lambda round: {} if round < 1 else other)
    device = client(server, tmp_path)
    device.place = replace(device.place, job="digest")
    with pytest.raises(OtherJob, match="run 'other'" if other["run"] == "other" else "was changed"):
        device.run()
    assert device.rounds == 1
    assert all("/rounds/0/" in path for path, _ in server.bodies), (
        "nothing of the first job reached the second"
    )


def test_it_takes_the_other_up_and_counts_both():
    class Taken:
        released = 0

        def __init__(self, rounds, other):
            self.rounds, self.other = rounds, other

        def run(self):
            if self.other:
                raise OtherJob("the server now has run 'b'")
            return self.rounds

        def release(self):
            Taken.released += 1

    lives, lines = iter([Taken(2, True), Taken(0, True), Taken(3, False)]), []
    assert until_it_ends(lambda: next(lives), lines.append) == 5
    assert Taken.released == 3 and lines == ["the server now has run 'b'; taking it up"] * 2


def test_the_first_is_gone_before_the_other_is_taken_up():
    lives = []

    class Life:
        rounds = 1

        def __init__(self):
            assert all(before() is None for before in lives), "two halves in memory at once"
            self.half = self  # as modules do, it refers to itself
            lives.append(weakref.ref(self))

        def run(self):
            if len(lives) < 3:
                raise OtherJob("the server's job was changed")
            return 1

        def release(self):
            pass

    assert until_it_ends(Life, lambda line: None) == 3


def test_what_keeps_it_from_the_other_is_reported():
    def refused():
        raise ServeError("no part")

    with pytest.raises(ServeError, match="no part"):
        until_it_ends(refused, print)


def test_a_digest_is_of_all_but_the_bits_of_a_round():
    told = {"run": "a", "bits": [4, 8], "job": "seed = 0"}
    assert job_digest(told) == job_digest(told | {"bits": [2, 2]}) != job_digest(told | {"job": "seed = 1"})
