"""Places: a newcomer always gets one, a device never loses its own to strangers, and none is counted twice."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import ServeError
from sflam.serve.admission import OWN, Admission, Connection, ConnectionPlaces, places_for, raise_file_limit
from sflam.serve.peers import Peers, WrongTokens


class Line:
    """A connection that remembers whether it was closed."""

    def __init__(self, admission, address="10.0.0.1"):
        self.open = True
        self.connection = Connection(address, self.close, admission)

    def close(self):
        self.open = False


def arrived(admission, address="10.0.0.1"):
    line = Line(admission, address)
    admission.arrive(line.connection)
    return line


def test_the_oldest_stranger_leaves_for_a_newcomer():
    admission = Admission(ConnectionPlaces(silent=2, speaking=1, devices=1))
    first, second, third = (arrived(admission) for _ in range(3))
    assert [line.open for line in (first, second, third)] == [False, True, True] and admission.evicted == 1
    admission.speaks(second.connection)
    admission.speaks(third.connection)
    assert [second.open, third.open] == [False, True]


def test_strangers_take_no_place_of_a_device():
    admission = Admission(ConnectionPlaces(silent=2, speaking=2, devices=2))
    device = arrived(admission)
    admission.speaks(device.connection)
    device.connection.prove(0)
    for _ in range(20):
        admission.speaks(arrived(admission).connection)
    assert device.open and len(admission.speaking) == 2


def test_the_device_with_the_most_connections_loses_its_oldest():
    admission = Admission(ConnectionPlaces(silent=9, speaking=9, devices=3))
    lines = [arrived(admission) for _ in range(4)]
    for line, device in zip(lines, (7, 8, 7, 9), strict=True):
        admission.speaks(line.connection)
        line.connection.prove(device)
    assert [line.open for line in lines] == [False, True, True, True]


def test_one_address_leaves_places_to_others_unless_it_is_this_machine_or_a_trusted_proxy():
    peers = Peers.of(["192.168.7.0/24"])
    admission = Admission(ConnectionPlaces(silent=9, speaking=9, devices=9, each=2), peers.unlimited)
    for address, kept in (("10.0.0.1", 2), ("127.0.0.1", 4), ("::1", 4), ("192.168.7.9", 4)):
        admission = Admission(ConnectionPlaces(silent=9, speaking=9, devices=9, each=2), peers.unlimited)
        lines = [arrived(admission, address) for _ in range(4)]
        assert [line.open for line in lines] == [False] * (4 - kept) + [True] * kept, address


def test_without_files_a_stranger_leaves_and_never_a_device():
    admission = Admission()
    device, silent = arrived(admission), arrived(admission)
    admission.speaks(device.connection)
    device.connection.prove(0)
    assert admission.relieve() and not silent.open
    assert not admission.relieve() and device.open


@given(st.lists(st.tuples(st.sampled_from(["arrive", "speaks", "prove", "leave"]), st.integers(0, 30))))
@settings(deadline=None)
def test_whatever_happens_places_hold_and_nothing_open_is_forgotten(events):
    places = ConnectionPlaces(silent=4, speaking=3, devices=2, each=5)
    admission, lines = Admission(places), []
    for event, number in events:
        if event == "arrive":
            lines.append(arrived(admission, f"10.0.0.{number % 2}"))
            assert lines[-1].open  # a newcomer always has a place
            continue
        if not lines:
            continue
        line = lines[number % len(lines)]
        match event:
            case "speaks":
                admission.speaks(line.connection)
            case "prove":
                line.connection.prove(number % 3)
            case "leave":
                admission.leave(line.connection)
                line.open = False
        held = [*admission.silent, *admission.speaking, *admission.devices]
        assert len(held) == len(set(held)) and {one.connection for one in lines if one.open} == set(held)
        assert len(admission.silent) <= 4 and len(admission.speaking) <= 3 and len(admission.devices) <= 2
        assert sum(admission._strangers.values()) == len(admission.silent) + len(admission.speaking)


def test_places_fit_the_files_of_the_process():
    for devices, files in ((8, 1024), (300, 65536), (4, 256)):
        found = places_for(devices, files)
        assert found.silent + found.speaking + 2 * found.devices + OWN <= files
        assert found.devices > devices and found.silent >= 32 and found.speaking >= 32
    assert places_for(1000, 65536).speaking >= 1000 <= places_for(1000, 65536).each
    with pytest.raises(ServeError, match=r"may open 256 files, and 100 devices need 624; raise the limit"):
        places_for(100, 256)


def test_the_limit_of_files_rises_to_what_is_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        most = min(512, before[1]) if before[1] >= 0 else 512
        assert raise_file_limit(512) == most == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert raise_file_limit(300) == most  # never lower
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_only_a_trusted_proxy_is_believed_where_a_request_comes_from():
    peers = Peers.of(["10.0.0.9", "10.1.0.0/16"])
    assert peers.origin("10.0.0.9", "203.0.113.5") == "203.0.113.5"
    assert peers.origin("10.0.0.9", "8.8.8.8, 203.0.113.5, 10.1.2.3") == "203.0.113.5"
    assert peers.origin("10.0.0.8", "203.0.113.5") == "10.0.0.8"
    assert peers.origin("127.0.0.1", "203.0.113.5") == "127.0.0.1"
    assert peers.origin("10.0.0.9", "") == "10.0.0.9"
    with pytest.raises(ServeError, match="--trusted-proxy"):
        Peers.of(["proxy.local"])


def test_wrong_tokens_are_few_an_address_and_a_second():
    now = [0.0]
    wrong = WrongTokens(3, 1.0, most=2, clock=lambda: now[0])
    assert [wrong.admit("10.0.0.1") for _ in range(5)] == [True] * 3 + [False] * 2
    assert wrong.admit("10.0.0.2")
    now[0] = 2.0
    assert [wrong.admit("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert wrong.admit("2001:db8::1") and len(wrong._left) == 2
    assert [wrong.admit(f"2001:db8::{n}") for n in range(2, 6)] == [True, True, False, False]  # one /64
