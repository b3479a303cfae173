"""A remote fleet is a local one to the round loop: every kind of model, texts of all lengths, different cuts.

Server and devices are threads here, with real sockets between them; processes and TLS are in
test_served_is_simulated.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from sflam.model.adapters import state_of
from sflam.model.families import CAUSAL
from sflam.model.split import DeviceSegment
from sflam.quant.settings import QuantSettings
from sflam.runtime.app import Door, application
from sflam.runtime.bounds import Bounds
from sflam.runtime.client import Client, Place
from sflam.runtime.credentials import Roster
from sflam.runtime.desk import Desk
from sflam.runtime.link import Link
from sflam.runtime.remote import RemoteFleet
from sflam.runtime.server import Listen, Server
from sflam.runtime.session import Session
from sflam.runtime.terms import Terms
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import CLASSES, VOCABULARY, WIDTH, is_image

SIZES = (7, 12, 5)
FEW = replace(LEARN, rounds=2, local_epochs=1)


def terms_of(local, labels, quant, text, causal):
    segment = local.devices.segment
    return {
        device: Terms(
            device=device, scheme=quant.scheme, bits=64 if quant.scheme == "identity" else quant.bits_up, dim=WIDTH,
            tokens=10 if text else 17, text=text, labels_up=labels == "server", per_token=causal,
            classes=VOCABULARY if causal else CLASSES, batch=local.learn.batch, local_steps=local.learn.local_steps,
            local_epochs=local.learn.local_epochs, adapters=segment.stack.size(segment.names(cut)), adapter_bits=64,
        )
        for device, cut in enumerate(local.devices.cuts)
    }  # fmt: skip


def remote_run(folder, kind, *, cuts, labels, quant, learn):
    """Run the rounds over sockets; return the records and the adapters."""
    backbone, model, examples = adapted(kind)
    parts, causal = parts_of(SIZES), backbone.task == CAUSAL
    options = {"cuts": cuts, "labels": labels, "quant": quant, "learn": learn}
    local = local_fleet(backbone, model, examples, parts, **options)
    desk = Desk(Session(len(SIZES), legs=1 if labels == "server" else 2), canonical=learn.canonical)
    terms = terms_of(local, labels, quant, not is_image(kind), causal)
    roster = Roster(folder / "devices.json")
    tokens = [roster.enrol(f"device-{device}") for device in terms]
    door = Door(desk, roster, terms, lambda _: {}, {}, Bounds(1 << 24, 1 << 22))
    server = Server(application(door), desk, Listen(port=0))
    desk.session.attempt = 0
    fleet = RemoteFleet(local, desk, terms, itertools.count(1).__next__, tell=lambda line: None)
    server.start()
    models = [adapted(kind) for _ in terms]  # they draw from torch's one generator, so not in threads

    def device(number):
        own, _, its = models[number]
        segment = DeviceSegment(own, cuts[number], 1, labels=labels)
        place = Place(number, "run", cuts[number], 3, own.task, its, parts[number])
        link = Link(f"http://127.0.0.1:{server.port}", tokens[number], patience=30)
        client = Client(link, place, segment, learn, local.crossing, folder / f"device-{number}")
        try:
            return client.run()
        finally:
            link.close()

    with ThreadPoolExecutor(len(SIZES)) as pool:
        joined = [pool.submit(device, number) for number in terms]
        try:
            found = run(fleet, state_of(model), learn.rounds)
        finally:
            desk.end()
        assert [one.result(30) for one in joined] == [learn.rounds] * len(SIZES)
    server.stop()
    return found


@pytest.mark.parametrize(
    ("kind", "labels", "cuts"),
    [
        ("vit", "server", (1, 0, 2)),
        ("bert", "server", (1, 2, 1)),
        ("bert", "device", (2, 1, 1)),
        ("gpt2-lm", "server", (1, 1, 1)),
        ("gpt2-lm", "device", (0, 1, 0)),
        ("llama", "server", (3, 1, 2)),
    ],
)
def test_the_round_loop_cannot_tell(tmp_path, kind, labels, cuts):
    options = {"cuts": cuts, "labels": labels, "quant": IDENTITY, "learn": FEW}
    backbone, model, examples = adapted(kind)
    local = local_fleet(backbone, model, examples, parts_of(SIZES), **options)
    wanted, state = run(local, state_of(model), FEW.rounds)
    records, found = remote_run(tmp_path, kind, **options)
    assert_equal_states(found, state)
    for mine, theirs in zip(records, wanted, strict=True):
        for name in ("samples", "device_steps", "bytes_up", "bytes_down", "code_bytes", "adapter_bytes_up",
                     "adapter_bytes_down", "participants"):  # fmt: skip
            assert getattr(mine, name) == getattr(theirs, name), name
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-6)  # language models' losses are float32


@pytest.fixture
def one_thread():
    """Canonical mode's one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_kept_state_and_few_bits_bit_for_bit(tmp_path):
    learn = replace(FEW, canonical=True, state="keep", optimizer="adam", local_steps=3)
    options = {
        "cuts": (1, 1, 1),
        "labels": "server",
        "quant": QuantSettings(bits_up=4, bits_down=3),
        "learn": learn,
    }
    backbone, model, examples = adapted("bert")
    local = local_fleet(backbone, model, examples, parts_of(SIZES), **options)
    _, state = run(local, state_of(model), learn.rounds)
    _, found = remote_run(tmp_path, "bert", **options)
    assert all(torch.equal(found[name], state[name]) for name in state)
