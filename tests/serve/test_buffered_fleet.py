"""Buffered rounds served: devices at their own pace, over real sockets, learn what a simulation of what came learns."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import Refused
from sflam.learn.staleness import weight_of
from sflam.learn.versions import RecordedVersions, buffers_of
from sflam.link.https_client import Link
from sflam.model.adapters import state_of
from tests.learn.builders import IDENTITY, LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.serve.test_poisoned_upload import poison, uploading
from tests.serve.threads import SIZES, Died, Rig

BUFFERED = replace(
    LEARN, sync="buffered", buffer=2, rounds=6, local_steps=2, optimizer="adam", clip=0.0, canonical=True
)
OPTIONS = {
    "cuts": (1, 0, 2),
    "labels": "server",
    "quant": QuantSettings(bits_up=4, bits_down=3, bits_adapters=8),
    "learn": BUFFERED,
}
pytestmark = pytest.mark.usefixtures("one_thread")


def again(kind, records, **options):
    """Run the job in one process with the updates that came to a served one."""
    backbone, model, examples = adapted(kind)
    local = local_fleet(backbone, model, examples, parts_of(SIZES), **options)
    return run(RecordedVersions(local, buffers_of(records)), state_of(model), len(records))


def assert_same(kind, records, found, **options):
    """The adapters and the records are those of the same updates in one process."""
    wanted, state = again(kind, records, **options)
    assert all(torch.equal(found[name], state[name]) for name in state)
    for mine, theirs in zip(records, wanted, strict=True):
        for name in ("samples", "device_steps", "bytes_up", "bytes_down", "code_bytes", "adapter_bytes_up",
                     "adapter_bytes_down", "participants", "device_samples"):  # fmt: skip
            assert getattr(mine, name) == getattr(theirs, name), name
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-12)  # summed in the order in which updates came


def buffers(records):
    return [record.measured.buffer for record in records]


def events(rig):
    return [json.loads(line) for line in (rig.folder / "served.jsonl").read_text().splitlines()]


def overtaken(folder, kind, versions, **options):
    """Return a rig whose device 2 begins with the first version, and hands in when there were so many more."""
    rig = None

    def goes_on(ready):
        class Waiting(Link):
            def _once(self, method, path, body, headers):
                while "/rounds/" in path and not ready() and not rig.dispatch.stopping:
                    time.sleep(0.01)
                return super()._once(method, path, body, headers)

        return Waiting

    def version():
        return rig.dispatch.session.round

    slow = goes_on(lambda: not rig.fleet.under_way.get(2) or version() >= versions)
    others = goes_on(lambda: (2 in rig.fleet.under_way and version() < versions) or rig.fleet.numbers[2])
    rig = Rig(folder, kind, links={0: others, 1: others, 2: slow}, **options)
    return rig


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("vit", "server"), ("vit", "device"), pytest.param("bert", "server", marks=pytest.mark.slow)],
)
def test_what_came_makes_the_same_versions_in_one_process(tmp_path, kind, labels):
    options = OPTIONS | {"labels": labels}
    rig = overtaken(tmp_path, kind, 2, **options)
    records, found = rig.run()
    came = buffers(records)
    assert all(len(buffer.devices) == 2 for buffer in came)
    assert max(tau for buffer in came for tau in buffer.staleness) >= 2
    for buffer in came:
        assert buffer.weights == tuple(map(weight_of, buffer.staleness))
        assert list(buffer.arrived) == sorted(buffer.arrived)
    assert_same(kind, records, found, **options)


def test_an_update_too_far_behind_is_thrown_away_and_named(tmp_path):
    options = OPTIONS | {"learn": replace(BUFFERED, buffer=1, staleness=1, rounds=10)}
    rig = overtaken(tmp_path, "vit", 3, **options)
    records, found = rig.run()
    came = buffers(records)
    assert max(tau for buffer in came for tau in buffer.staleness) <= 1
    behind = [tau for buffer in came for tau in buffer.refused_staleness]
    assert behind and min(behind) > 1
    assert any("is thrown away" in line and "learn.staleness is 1" in line for line in rig.lines)
    assert [event["staleness"] for event in events(rig) if event["event"] == "stale"][: len(behind)] == behind
    assert_same("vit", records, found, **options)


@pytest.mark.parametrize("gone", ["lost", "late"])
def test_nobody_waits_for_a_device_that_is_away(tmp_path, gone):
    rig = None

    def over():
        session = rig.dispatch.session
        return session.phase.value == "ended" or (gone == "late" and session.round >= 3)

    class Away(Link):
        """A way that ends in the middle of a step and never comes back, or one that begins late."""

        calls = 0

        def _once(self, *args):
            self.calls += 1
            while (gone == "late" or self.calls > 4) and not over() and not rig.dispatch.stopping:
                time.sleep(0.01)
            return super()._once(*args)

    rig = Rig(tmp_path, "vit", links={1: Away}, **OPTIONS | {"learn": replace(BUFFERED, rounds=8)})
    records, found = rig.run()
    devices = [device for buffer in buffers(records) for device in buffer.devices]
    assert len(devices) == 16 and {0, 2} <= set(devices)
    assert all(1 not in buffer.devices for buffer in buffers(records)[: 8 if gone == "lost" else 3])
    assert_same("vit", records, found, **OPTIONS)


@pytest.mark.parametrize(("memory", "labels"), [("kept", "server"), ("lost", "server"), ("lost", "device")])
def test_a_device_that_died_goes_on_or_begins_its_cycle_anew(tmp_path, memory, labels):
    """With labels at home it dies between the two exchanges of a step."""
    options, fatal = OPTIONS | {"labels": labels}, 3 if labels == "server" else 5

    class Dying(Link):
        """A way whose device dies with the answer to its third step."""

        deaths = calls = 0

        def _once(self, method, path, body, headers):
            found = super()._once(method, path, body, headers)
            Dying.calls += "/steps/" in path
            if Dying.calls == fatal and not Dying.deaths:
                Dying.deaths += 1
                if memory == "lost":
                    (tmp_path / "device-1.safetensors").unlink()
                raise Died
            return found

    class Behind(Link):
        """A way on which nothing happens before the other device has made its way."""

        def _once(self, *args):
            while Dying.calls < 2 * fatal and not rig.dispatch.stopping:
                time.sleep(0.01)
            return super()._once(*args)

    rig = Rig(tmp_path, "vit", links={0: Behind, 1: Dying, 2: Behind}, **options)
    records, found = rig.run()
    began = [
        (one["round"], one["attempt"])
        for one in events(rig)
        if one["event"] == "began" and one["device"] == 1
    ]
    assert rig.deaths == 1
    numbers = [number for number, _ in began]
    assert (numbers.count(1) == 2) == (memory == "lost")
    assert_same("vit", records, found, **options)


def test_a_pull_is_towards_the_version_that_each_device_began_with(tmp_path):
    options = OPTIONS | {"learn": replace(BUFFERED, local="fedprox", prox=0.5)}
    records, found = overtaken(tmp_path, "vit", 2, **options).run()
    assert any(tau for buffer in buffers(records) for tau in buffer.staleness)
    assert_same("vit", records, found, **options)


@pytest.mark.slow
def test_devices_without_torch_make_the_same_requests(tmp_path):
    options = OPTIONS | {"cuts": (1, 1, 1)}
    records, found = Rig(tmp_path, "vit", lean=(0, 1, 2), **options).run()
    assert all(len(buffer.devices) == 2 for buffer in buffers(records))
    _, state = again("vit", records, **options)
    moved = max(float((found[name] - state[name]).abs().max()) for name in state)
    assert moved < 0.1, "but for the steps that rounding flips"


def test_in_any_order_steps_of_several_versions_go_through_the_trunk_together(tmp_path):
    options = OPTIONS | {"quant": IDENTITY, "learn": replace(BUFFERED, canonical=False)}
    records, found = Rig(tmp_path, "vit", **options).run()
    assert_equal_states(found, again("vit", records, **options)[1])


def test_orders_of_an_operator(tmp_path):
    rig = None

    class Operated(Link):
        """A way on which the operator kicks the device in its second cycle, and then drains it."""

        def _once(self, method, path, body, headers):
            if path.startswith("/v1/rounds/1/") and path.endswith("/steps/1") and not rig.orders.kicked:
                rig.operation.kick("alice", ["device-1"])
                with pytest.raises(Refused, match="at their own pace"):
                    rig.operation.close("alice")
                rig.operation.drain("alice", ["device-1"])
            return super()._once(method, path, body, headers)

    rig = Rig(tmp_path, "vit", links={1: Operated}, **OPTIONS)
    records, found = rig.run()
    assert [number for buffer in buffers(records) for device, number in zip(buffer.devices, buffer.numbers, strict=True)
            if device == 1] == [0]  # fmt: skip
    assert_same("vit", records, found, **OPTIONS)


def test_what_no_steps_can_make_is_in_no_version(tmp_path):
    options = OPTIONS | {"quant": replace(OPTIONS["quant"], bits_adapters=32)}
    rig = None

    class After(Link):
        """A way on which nothing happens before the other device has handed in."""

        def _once(self, *args):
            while not rig.fleet.numbers[2] and not rig.dispatch.stopping:
                time.sleep(0.01)
            return super()._once(*args)

    rig = Rig(tmp_path, "vit", links={0: After, 1: After, 2: uploading(poison)}, **options)
    records, found = rig.run()
    assert all(2 not in buffer.devices for buffer in buffers(records))
    refused = [one for one in events(rig) if one["event"] == "distrusted"]
    assert refused and {one["device"] for one in refused} == {2}
    _, state = again("vit", records, **options)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_the_live_page_has_the_buffer_and_how_far_behind_updates_were(tmp_path):
    pages, rig = [], None

    class Looking(Link):
        def _once(self, method, path, body, headers):
            if path.endswith("/steps/1") and rig.dispatch.session.round == 4:
                with urllib.request.urlopen(f"http://127.0.0.1:{rig.server.port}/") as found:
                    pages.append(found.read().decode())
            return super()._once(method, path, body, headers)

    rig = Rig(tmp_path, "vit", links=dict.fromkeys((0, 1, 2), Looking), **OPTIONS)
    rig.run()
    assert "of 2 updates for the next version" in pages[-1] and "3 are here" in pages[-1]
