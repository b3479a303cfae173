"""Every fault at every phase of a step and of the upload: the adapters are the undisturbed run's, bit for bit."""

from __future__ import annotations

import enum
import functools
import http.client
import socket
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.data.batches import round_batches
from sflam.learn.round import local_steps
from sflam.link.https_client import Link
from sflam.model.adapters import state_of
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of
from tests.serve.threads import KINDS, SIZES, Died, Rig, simulated

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 3
JOB = {
    "cuts": (1, 1, 1),
    "quant": QuantSettings(bits_up=4, bits_down=4),
    "learn": replace(LEARN, canonical=True, state="keep", optimizer="adam", local_steps=STEPS),
}


class Fault(enum.Enum):
    """What happens to one request."""

    DIE_BEFORE_SEND = enum.auto()
    DIE_IN_BODY = enum.auto()
    DIE_BEFORE_ANSWER = enum.auto()
    DIE_AFTER_ANSWER = enum.auto()
    LOST_ANSWER = enum.auto()
    HALF_OPEN = enum.auto()
    STALL = enum.auto()
    SLOW_BODY = enum.auto()
    DUPLICATE = enum.auto()
    REORDERED = enum.auto()


def part(link, method, path, body, headers, share):
    """Send the head and a share of the body on a connection of its own; return it, still open."""
    sent = {"Authorization": f"Bearer {link.token}", "Content-Length": str(len(body))} | headers
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\n"
        + "".join(f"{k}: {v}\r\n" for k, v in sent.items())
        + "\r\n"
    )
    connection = socket.create_connection((link.host, link.port), timeout=60)
    connection.sendall(head.encode() + body[: int(share * len(body))])
    return connection


def faulty(fault, at):
    """Return the class of a link that suffers ``fault`` once, at the first request whose path ends with ``at``."""

    class Faulty(Link):
        due = True
        held = ()

        def _once(self, method, path, body, headers):
            now = type(self).due and path.endswith(at) and method != "GET"
            if not now:
                return super()._once(method, path, body, headers)
            type(self).due = False
            match fault:
                case Fault.DIE_BEFORE_SEND:
                    raise Died
                case Fault.DIE_IN_BODY:
                    part(self, method, path, body, headers, 0.5).close()
                    raise Died
                case Fault.DIE_BEFORE_ANSWER:
                    part(self, method, path, body, headers, 1.0).close()
                    raise Died
                case Fault.DIE_AFTER_ANSWER:
                    super()._once(method, path, body, headers)
                    raise Died
                case Fault.LOST_ANSWER:
                    assert super()._once(method, path, body, headers)[0] < 300
                    raise http.client.RemoteDisconnected("lost on purpose")
                case Fault.HALF_OPEN:  # a connection of which the server does not know that it is dead
                    type(self).held = (part(self, method, path, body, headers, 0.5),)
                    raise ConnectionResetError("lost on purpose")
                case Fault.STALL:
                    time.sleep(1.0)
                case Fault.SLOW_BODY:
                    connection = part(self, method, path, body, headers, 0.0)
                    for byte in range(0, len(body), 1 + len(body) // 10):
                        connection.sendall(body[byte : byte + 1 + len(body) // 10])
                        time.sleep(0.02)
                    connection.close()
                    raise ConnectionResetError("lost on purpose")
                case Fault.DUPLICATE:
                    found = [super(Faulty, self)._once(method, path, body, headers) for _ in range(2)]
                    # The last upload closes the round, and its duplicate may come after that.
                    over = path.endswith("adapters") and found[1][0] == 409 and b"the round" in found[1][2]
                    assert found[0] == found[1] or over
                case (
                    Fault.REORDERED
                ):  # a request of an earlier attempt arrives late, and one of a later step early
                    for other in (path.replace("/1/", "/0/", 1), path.replace(at, f"steps/{STEPS + 1}")):
                        assert super()._once(method, other, body, headers)[0] in (404, 409, 413, 422)
            return super()._once(method, path, body, headers)

    return Faulty


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Kind of device and labels -> the adapters, of the simulation or of devices without torch that nothing befell."""

    @functools.cache
    def found(lean, labels):
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if not lean:
                return simulated("bert", labels=labels, **JOB)[1]
            return Rig(tmp_path_factory.mktemp("lean"), "bert", labels=labels, lean=lean, **JOB).run()[1]
        finally:
            torch.set_num_threads(before)

    return found


def suffers(folder, undisturbed, fault, at, labels, lean):
    wanted = undisturbed(lean, labels)
    rig = Rig(folder, "bert", labels=labels, links={1: faulty(fault, at)}, lean=lean, **JOB)
    _, found = rig.run()
    for connection in rig.links[1].held:
        connection.close()
    assert not rig.links[1].due  # it happened
    assert rig.deaths == fault.name.startswith("DIE")
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    legs = 1 if labels == "server" else 2
    assert rig.dispatch.computed == 3 * STEPS * legs * JOB["learn"].rounds  # nothing was computed twice


QUICK = (Fault.DIE_IN_BODY, Fault.DIE_BEFORE_ANSWER, Fault.LOST_ANSWER, Fault.DUPLICATE, Fault.REORDERED)


def faults(quick, but=()):
    """Return every fault; those not in ``quick`` are for slow runs."""
    return [
        pytest.param(fault, marks=() if fault in quick else pytest.mark.slow)
        for fault in Fault
        if fault not in but
    ]


@KINDS
@pytest.mark.parametrize("fault", faults(QUICK))
def test_a_fault_in_a_step(tmp_path, undisturbed, fault, lean):
    suffers(tmp_path, undisturbed, fault, "steps/1", "server", lean)


@KINDS
@pytest.mark.parametrize(
    "fault", faults((Fault.DIE_BEFORE_SEND, Fault.DIE_AFTER_ANSWER), but=(Fault.REORDERED,))
)
def test_a_fault_in_the_upload(tmp_path, undisturbed, fault, lean):
    suffers(tmp_path, undisturbed, fault, "adapters", "server", lean)


class EveryFifth(Link):
    """Loses every fifth answer."""

    asked = 0

    def _once(self, method, path, body, headers):
        self.asked += 1
        found = super()._once(method, path, body, headers)
        if self.asked % 5 == 0:
            raise http.client.RemoteDisconnected("lost on purpose")
        return found


@KINDS
@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_every_fifth_answer_lost_and_nothing_computed_twice(tmp_path, undisturbed, labels, lean):
    rig = Rig(tmp_path, "bert", labels=labels, links=dict.fromkeys(range(3), EveryFifth), lean=lean, **JOB)
    _, found = rig.run()
    wanted = undisturbed(lean, labels)
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert rig.dispatch.computed == 3 * STEPS * (1 if labels == "server" else 2) * JOB["learn"].rounds
    assert rig.dispatch.repeated > 0


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("at", ["steps/1/forward", "steps/1/backward", "steps/2/backward", "steps/0/forward"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.REORDERED])
def test_a_fault_in_a_step_of_two_exchanges(tmp_path, undisturbed, fault, at, lean):
    suffers(tmp_path, undisturbed, fault, at, "device", lean)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("at", ["steps/0", "steps/2", "session"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.REORDERED])
def test_a_fault_at_the_first_and_the_last_request(tmp_path, undisturbed, fault, at, lean):
    suffers(tmp_path, undisturbed, fault, at, "server", lean)


@pytest.mark.parametrize(
    ("labels", "at", "made"),
    [
        ("server", "steps/1", 1),
        ("device", "adapters", STEPS),
        pytest.param("server", "adapters", STEPS, marks=pytest.mark.slow),
        pytest.param("device", "steps/1", 1, marks=pytest.mark.slow),
    ],
)
@KINDS
def test_who_misses_the_end_is_left_out_of_exactly_that_round(tmp_path, labels, at, made, lean):
    at += "/forward" if labels == "device" and at != "adapters" else ""
    present = {0: (0, 2), 1: (0, 1, 2)}
    # A kept optimiser would remember what the device did alone; a trunk's last bits depend on who shares a step.
    job = JOB | {"learn": replace(JOB["learn"], state="reset"), "quant": IDENTITY}
    _, wanted = simulated("bert", labels=labels, selected=lambda _, round: present[round], **job)
    rig = Rig(
        tmp_path,
        "bert",
        labels=labels,
        links={1: faulty(Fault.DIE_BEFORE_SEND, at)},
        away=True,
        quorum=2,
        lean=lean,
        **job,
    )
    records, found = rig.run()
    assert [record.participants for record in records] == [present[0], present[1]]
    assert (records[0].measured.left_out, records[0].measured.left_steps) == ((1,), (made,))
    assert records[1].measured.left_out == ()
    assert_equal_states(found, wanted)


@KINDS
@pytest.mark.parametrize("update", ["sequential", "batched"])
def test_what_a_device_left_in_a_shared_trunk_stays_and_history_says_how_much(tmp_path, update, lean):
    """SFL-V2: a device that is left out has no part in the average, but its steps moved the one copy that all share."""
    learn = replace(JOB["learn"], method="sfl-v2", server_update=update, state="reset")
    job = JOB | {"learn": learn, "quant": IDENTITY, "labels": "server"}
    rig = Rig(
        tmp_path,
        "bert",
        links={1: faulty(Fault.DIE_BEFORE_SEND, "steps/1")},
        away=True,
        quorum=2,
        lean=lean,
        **job,
    )
    records, found = rig.run()
    first, second = (record.measured for record in records)
    assert (first.left_out, first.left_steps) == ((1,), (1,)) and second.left_out == ()
    assert [record.participants for record in records] == [(0, 2), (0, 1, 2)]

    def by_hand(steps):
        """Return the adapters where device 1 takes only so many steps of the first round."""
        backbone, model, examples = adapted("bert")
        fleet = local_fleet(backbone, model, examples, parts_of(SIZES), **job)
        state = state_of(model)
        for number in range(learn.rounds):
            fleet.download(number, (0, 1, 2), state)
            batches = {
                device: [
                    partial(examples.take, rows)
                    for rows in round_batches(
                        part, learn.batch, seed=3, round=number, device=device, steps=STEPS, epochs=1
                    )
                ]
                for device, part in enumerate(parts_of(SIZES))
            }
            if number == 0:
                batches[1] = batches[1][:steps]
            batches = {device: own for device, own in batches.items() if own}
            done = local_steps(number, batches, fleet.devices, fleet.servers, fleet.exchange)
            state = fleet.average(number, (0, 2) if number == 0 else (0, 1, 2), done).state
        return state

    assert_equal_states(found, by_hand(1))
    never = by_hand(0)
    assert any(not torch.equal(found[name], never[name]) for name in found)  # so the step did remain
