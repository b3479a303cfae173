"""The page's device in node, through a real server over TLS: the adapters are those of every other device."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.learn.builders import assert_equal_states
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import JOB, sets, simulated
from tests.web.node import HERE, needs_node

pytestmark = needs_node
EXACT = (*JOB, "quant.scheme=identity", "learn.optimizer=sgd", "learn.lr=0.05", "learn.clip=0")


class NodeDevice:
    """A device in node, whose lines are kept."""

    def __init__(self, net, device, **options):
        token = (net.folder / f"token-{device}").read_text()
        command = [
            "node",
            str(HERE / "device.mjs"),
            f"https://localhost:{net.port}",
            token,
            json.dumps(options),
        ]
        self.file = net.folder / f"node-{device}-{time.monotonic_ns()}"
        with self.file.open("w") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=os.environ | {"NODE_EXTRA_CA_CERTS": str(net.folder / "certs" / "ca.pem")},
            )

    @property
    def text(self):
        return self.file.read_text()

    def wait_for(self, text, seconds=60):
        until = time.monotonic() + seconds
        while text not in self.text and time.monotonic() < until and self.process.poll() is None:
            time.sleep(0.02)
        assert text in self.text, self.text

    def wait(self, seconds=300):
        return self.process.wait(seconds)

    def stop(self):
        self.process.kill()
        self.process.wait()


def served(folder, settings, **options):
    """Serve a job to a device without torch and two in node; return the adapters."""
    with network(folder, 3) as net:
        server = net.serve(*sets(settings), "--browser", "--out", folder / "run", graphs=True)
        lean, pages = net.device(2), [NodeDevice(net, device, **options) for device in range(2)]
        try:
            while server.process.is_alive():
                assert not any(page.process.poll() for page in pages), [page.text for page in pages]
                server.process.join(0.2)
            assert server.wait() == 0, server.lines
            if (
                "lose" not in options
            ):  # where the answer that the run has ended was lost, a device waits for another
                assert [page.wait() for page in pages] == [0, 0], [page.text for page in pages]
        finally:
            for page in pages:
                page.stop()
        assert lean.wait() == 0, lean.lines
    return adapters_of(folder / "run")


def test_one_step_of_sgd(tmp_path):
    settings = (*EXACT, "learn.local_steps=1", "learn.rounds=1")
    assert_equal_states(served(tmp_path, settings), simulated(tmp_path / "local", settings), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("model.labels=device", "model.trainable=lora+head"),
        ("learn.local=fedprox", "learn.prox=0.5"),
        ("learn.aggregation=freeze-a",),
        ("learn.device_half=frozen",),
        ("learn.method=sflam-mixed", "learn.lr=0.05"),
        ("data.sampling=global", "learn.state=keep", "learn.momentum=0.9"),
        ("learn.schedule=cosine", "learn.warmup=0.2", "learn.weight_decay=0.1"),
        ("model.cut=3", "learn.local_steps=0", "learn.batch=64"),
    ],
    ids=lambda more: " ".join(more),
)
def test_whatever_is_served(tmp_path, more):
    settings = (*EXACT, *more)
    assert_equal_states(served(tmp_path, settings), simulated(tmp_path / "local", settings), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["uniform", "rotated", "topk"])
def test_quantized(tmp_path, scheme):
    """One step: codes are those of other devices but where activations differ in their last bit."""
    settings = (
        *EXACT,
        f"quant.scheme={scheme}",
        "model.labels=device",
        "learn.local_steps=1",
        "learn.rounds=2",
    )
    assert_equal_states(served(tmp_path, settings), simulated(tmp_path / "local", settings), 2e-2)


@pytest.mark.slow
def test_changes_of_adapters(tmp_path):
    """Adapters that are sent as changes of 16 bits are as near to a simulation's as floats are, but for a step."""
    settings = (
        *EXACT,
        "quant.scheme=uniform",
        "quant.bits_up=16",
        "quant.bits_down=16",
        "learn.local_steps=1",
    )
    few = (*settings, "quant.bits_adapters=8", "learn.rounds=2")
    assert_equal_states(served(tmp_path, few), simulated(tmp_path / "local", few), 2e-2)


@pytest.mark.slow
def test_every_fifth_answer_lost(tmp_path):
    settings = (*EXACT, "learn.local_steps=6", "learn.rounds=1")
    assert_equal_states(served(tmp_path, settings, lose=5), simulated(tmp_path / "local", settings), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_device_killed_at_any_moment_comes_back(tmp_path, labels):
    settings = (*EXACT, "learn.local_steps=60", "learn.state=keep", f"model.labels={labels}")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--browser", "--out", tmp_path / "run", graphs=True)
        others = [net.device(device) for device in (1, 2)]
        page = NodeDevice(net, 0, state=str(tmp_path / "state"))
        server.wait_for("round 1, attempt 1", 300)
        for _ in range(3):
            page.wait_for("phase")
            time.sleep(0.7)
            page.stop()
            page = NodeDevice(net, 0, state=str(tmp_path / "state"))
        assert server.wait(600) == 0, (server.lines, page.text)
        assert page.wait() == 0 and [other.wait(20) for other in others] == [0, 0], page.text
    assert_equal_states(adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings), 1e-3)


@pytest.mark.slow
def test_what_it_cannot_do_is_refused_by_name_before_it_joins(tmp_path):
    settings = (*JOB, "model.labels=device", "learn.local=fedlc", "model.dtype=float64")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--browser", "--out", tmp_path / "run", graphs=True)
        page = NodeDevice(net, 0)
        assert page.wait() == 2
        [line] = page.text.splitlines()
        assert "a browser cannot do model.dtype = float64, learn.local = fedlc" in line
        assert "attempt 1" not in " ".join(server.lines)


def test_a_server_with_another_job_is_noticed(tmp_path):
    with network(tmp_path, 3) as net:
        server = net.serve(*sets(EXACT), "--browser", "--out", tmp_path / "first", graphs=True)
        page = NodeDevice(net, 0)
        try:
            page.wait_for('"phase"')
            server.kill()
            server.wait()
            net.serve(*sets(EXACT), "--browser", "--out", tmp_path / "second", graphs=True)
            assert page.wait(60) == 2
            assert "the server now has run" in page.text and "load this page again" in page.text
        finally:
            page.stop()
