"""Tokens that are renewed while a run goes on: nothing of it changes, also where the server is killed in between."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from sflam.codec.settings import QuantSettings
from sflam.link.https_client import Link
from sflam.link.own_token import OwnToken
from sflam.link.token import read_token
from sflam.serve import roster as rosters
from sflam.serve.event_log import EventLog
from sflam.serve.roster import DAY, Roster
from sflam.serve.token_file import digest
from sflam.serve.token_renewal import TokenRenewal
from tests.learn.builders import LEARN
from tests.serve.network import adapters_of, network
from tests.serve.test_operation import equal, events
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets
from tests.serve.test_served_is_simulated import simulated as simulated_run
from tests.serve.threads import KINDS, Rig, simulated

JOB = {
    "cuts": (1, 1, 1),
    "labels": "server",
    "quant": QuantSettings(bits_up=4, bits_down=4),
    "learn": replace(LEARN, canonical=True, local_steps=3, rounds=3),
}


@KINDS
def test_tokens_that_end_during_a_run_change_nothing_of_it(tmp_path, one_thread, lean):
    """Every request takes an eighth of a day, and a token a day: it ends many times in every round."""
    at, seen = [time.time()], set()

    class Old(Link):
        def __init__(self, address, token, **options):
            file = tmp_path / "token"
            file.write_text(token)
            super().__init__(address, token, own=OwnToken(file, token), **options)

        def _once(self, *request):
            found = super()._once(*request)
            at[0] += DAY / 8
            seen.add(self.token)
            return found

    log = EventLog(tmp_path / "served.jsonl")

    def routes(ingress):
        ingress.clock = lambda: at[0]
        return TokenRenewal(ingress, 1.0, log).routes()

    rig = Rig(tmp_path / "rig", "vit", links={1: Old}, lean=lean, more=routes, **JOB)
    roster = rig.ingress.roster
    rig.tokens = [roster.enrol(f"device-{number}", days=1 if number == 1 else 9999) for number in range(3)]
    _, found = rig.run()
    log.close()
    assert equal(found, simulated("vit", **JOB)[1])
    taken = [one for one in events(tmp_path) if one["event"] == "token_taken"]
    assert len(taken) >= 2 and len(seen) == len(taken) + 1
    last, roster = read_token(tmp_path / "token"), Roster(roster.path)
    assert last != rig.tokens[1] and roster.holder_of(last).name == "device-1"
    assert roster.holder_of(rig.tokens[1]) is None
    assert not any(token in roster.path.read_text() for token in seen)


def die_with_a_token_on_disk():
    """Before its device hears of it."""
    write = rosters.Roster._write

    def last(self, rows):
        write(self, rows)
        os._exit(9)

    rosters.Roster._write = last


@pytest.mark.slow
def test_a_server_killed_between_handing_out_and_first_use(room, tmp_path):
    settings = job_of(room, *FOUR_BITS, "learn.rounds=3")
    with network(tmp_path) as net:
        roster = Roster(tmp_path / "devices.json")
        entries = roster.entries()
        now = time.time()
        with roster._alone():
            roster._write(
                [replace(one, issued=now - 29 * DAY, expires=now + DAY) for one in entries.values()]
            )
        old = [(tmp_path / f"token-{device}").read_text() for device in range(3)]
        renew = ("--token-days", 30)

        server = net.serve(
            *sets(settings), "--out", tmp_path / "run", *renew, prepare=die_with_a_token_on_disk
        )
        joined = [net.join(device) for device in range(3)]
        assert server.wait() == 9
        server.killed = True
        assert sum(bool(entry.next_sha256) for entry in roster.entries().values()) == 1
        server = net.serve("--resume", tmp_path / "run", *renew)
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    assert equal(adapters_of(tmp_path / "run"), simulated_run(tmp_path / "alone", settings))
    between = []
    for device in range(3):
        file = tmp_path / f"token-{device}"
        entry = roster.holder_of(read_token(file))
        assert entry.name == f"device-{device}"
        if entry.next_sha256:  # asked again after a minute, which this run does not last
            between.append(device)
            assert entry.next_sha256 == digest(read_token(tmp_path / f"token-{device}.next"))
            assert read_token(file) == old[device]
    assert len(between) <= 1
