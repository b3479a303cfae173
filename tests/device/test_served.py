"""A device without torch through a real server, processes, sockets and TLS: the adapters are those of torch."""

from __future__ import annotations

import math
import signal
import time

import numpy as np
import pytest
import safetensors

from sflam.records import history
from tests.learn.builders import assert_equal_states
from tests.reviews import write_reviews
from tests.serve.network import adapters_of, network
from tests.serve.test_faults import lose_every_fifth_answer
from tests.serve.test_served_is_simulated import JOB, job_of, sets, simulated
from tests.tiny import CLASSES, VOCABULARY, is_image, tiny

EXACT = ("quant.scheme=identity", "model.dtype=float64")
ONE_STEP = ("learn.rounds=1", "learn.local_steps=1", "learn.optimizer=sgd", "learn.clip=0")
LEAN, TORCH = "device", "join"


def served(folder, settings, kinds=(LEAN,) * 3, data=()):
    """Serve a job to devices of these kinds, which read ``data``; return the adapters and the lines of each."""
    with network(folder, len(kinds)) as net:
        server = net.serve(*sets(settings), "--out", folder / "run", graphs=True)
        start = {LEAN: net.device, TORCH: net.join}
        joined = [start[kind](number, *data) for number, kind in enumerate(kinds)]
        codes = [device.wait() for device in joined]
        assert codes == [0] * len(kinds), [device.lines for device in joined]
        assert server.wait() == 0, server.lines
    return adapters_of(folder / "run"), [device.lines for device in joined]


@pytest.mark.parametrize("labels", ["server", pytest.param("device", marks=pytest.mark.slow)])
def test_adamw_in_float64_of_a_mixed_fleet(room, tmp_path, labels):
    settings = job_of(room, *EXACT, f"model.labels={labels}", "learn.local_steps=5", "learn.rounds=1")
    found, lines = served(tmp_path, settings, (LEAN, TORCH, LEAN))
    assert_equal_states(found, simulated(tmp_path / "local", settings))
    assert [any("peak about" in line for line in each) for each in lines] == [True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_mixed_fleet_of_weights_in_fewer_bytes(room, tmp_path, labels, weights):
    more = (f"model.labels={labels}", f"device.weights={weights}", "learn.rounds=1")
    settings = job_of(room, *EXACT, *more)
    found, _ = served(tmp_path, settings, (LEAN, TORCH, LEAN))
    assert_equal_states(found, simulated(tmp_path / "local", settings))
    sizes = [path.stat().st_size for path in tmp_path.glob("**/cut-*.safetensors")]
    assert sizes and max(sizes) < {"float16": 0.4, "int8": 0.3}[weights] * 8 * matrices_of(tmp_path)


def matrices_of(folder):
    """Return how many numbers there are in the file that a device downloaded, scales apart."""
    with safetensors.safe_open(next(folder.glob("**/cut-*.safetensors")), "np") as file:
        return sum(
            math.prod(file.get_slice(name).get_shape()) for name in file.keys() if not name.endswith(".scale")
        )


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_one_step_of_sgd(room, tmp_path, dtype, tolerance, labels):
    settings = job_of(
        room, *ONE_STEP, "quant.scheme=identity", f"model.dtype={dtype}", f"model.labels={labels}"
    )
    found, _ = served(tmp_path, settings)
    assert_equal_states(found, simulated(tmp_path / "local", settings), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("learn.local=fedprox", "learn.prox=0.5"),
        ("learn.aggregation=freeze-a",),
        ("model.tuned=1", "model.cut=2"),
        ("model.tuned=-1", "model.cut=2"),
        ("fleet.tuned=[1, -1, -2]", "model.cut=2"),
        ("model.tuned=-1", "model.cut=2", "learn.cache=device"),
        ("model.tuned=-2", "model.cut=2", "model.labels=device"),
        ("learn.aggregation=svd",),
        ("learn.device_half=frozen",),
        ("learn.device_half=frozen", "learn.cache=device"),
        ("learn.method=sfl-v2",),
        ("learn.method=sflam-mixed",),
        ("data.sampling=global",),
        ("learn.server_optimizer=momentum",),
        ("learn.schedule=cosine", "learn.warmup=0.2", "learn.state=keep", "learn.optimizer=adam"),
        ("model.cut=0",),
        ("model.cut=3",),
        ("model.labels=device", "model.trainable=lora+head"),
        ("learn.checkpointing=true", "learn.optimizer=sgd", "learn.momentum=0.9", "learn.weight_decay=0.1"),
    ],
    ids=lambda more: " ".join(more),
)
def test_whatever_is_served(room, tmp_path, more):
    settings = job_of(room, *EXACT, *more)
    found, _ = served(tmp_path, settings)
    assert_equal_states(found, simulated(tmp_path / "local", settings))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2-lm"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_texts(tmp_path, kind, labels):
    write_reviews(tmp_path)
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, 60)
    arrays = {"input_ids": rng.integers(4, 15, (60, 12)), "lengths": lengths, "label": np.arange(60) % 2}
    np.savez(tmp_path / "texts.npz", **arrays)
    settings = (
        *JOB, *EXACT, f"model.labels={labels}",
        f"model.name={tmp_path / kind}", f"data.name={tmp_path / 'texts.npz'}", "learn.weight_decay=0.1",
        *(("data.label=",) if kind == "gpt2-lm" else ()),
    )  # fmt: skip
    found, _ = served(tmp_path, settings, data=("--data", tmp_path / "texts.npz", "--share"))
    # a language model's loss is in float32 with torch, whatever the model's precision
    tolerance = 1e-9 if kind == "bert" else 1e-4
    assert_equal_states(found, simulated(tmp_path / "local", settings), tolerance)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("electra", "device"),
        *(
            pytest.param(kind, labels, marks=pytest.mark.slow)
            for kind, labels in [
                ("electra", "server"),
                ("opt", "server"),
                ("opt", "device"),
                ("msn", "server"),
            ]
        ),
    ],
)
def test_a_mixed_fleet_of_a_model_split_by_its_structure(tmp_path, kind, labels):
    tiny(kind, dropout=0.0).model.save_pretrained(tmp_path / kind)
    rng = np.random.default_rng(0)
    arrays = {"label": np.arange(60) % CLASSES}
    if is_image(kind):
        arrays["image"] = rng.integers(0, 255, (60, 16, 16), dtype=np.uint8)
    else:
        arrays |= {"input_ids": rng.integers(1, VOCABULARY, (60, 12)), "lengths": rng.integers(2, 12, 60)}
    np.savez(tmp_path / "data.npz", **arrays)
    settings = (
        *JOB, *EXACT, f"model.labels={labels}", f"model.name={tmp_path / kind}",
        f"data.name={tmp_path / 'data.npz'}", "learn.rounds=1",
    )  # fmt: skip
    data = ("--data", tmp_path / "data.npz", "--share")
    found, _ = served(tmp_path, settings, (LEAN, TORCH, LEAN), data=data)
    assert_equal_states(found, simulated(tmp_path / "local", settings), 1e-9)


@pytest.mark.slow
def test_quantized_as_good_as_torch_and_the_share_of_codes_that_differ(room, tmp_path):
    settings = job_of(room, "quant.bits_up=4", "quant.bits_down=4", "learn.rounds=3", "learn.canonical=true")
    found, _ = served(tmp_path, settings)
    wanted = simulated(tmp_path / "local", settings)
    far = max(
        float((found[name] - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-6)) for name in wanted
    )
    assert far < 0.1  # one flipped code in a thousand or so; masks and noise are the same
    ours, theirs = (history.read(tmp_path / name / "history.jsonl")[1][-1] for name in ("run", "local"))
    assert ours.loss == pytest.approx(theirs.loss, rel=0.02)


@pytest.mark.slow
def test_every_fifth_answer_lost(room, tmp_path):
    settings = job_of(room, *EXACT, "learn.local_steps=6", "learn.rounds=1")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", graphs=True)
        joined = [net.device(device, prepare=lose_every_fifth_answer) for device in range(3)]
        assert server.wait() == 0, server.lines
        for device in joined:
            device.wait(20)
    assert_equal_states(adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings))


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["server", "device"])
def test_a_device_killed_at_any_moment_comes_back(room, tmp_path, labels):
    settings = job_of(room, *EXACT, "learn.local_steps=60", "learn.state=keep", f"model.labels={labels}")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", graphs=True)
        joined = [net.device(device) for device in range(3)]
        for victim in (0, 1, 0):
            joined[victim].wait_for("samples")
            server.wait_for("round 1, attempt 1")
            time.sleep(0.7)
            joined[victim].kill(signal.SIGKILL)
            joined[victim].process.join(10)
            joined[victim] = net.device(victim)
        assert server.wait(300) == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    assert_equal_states(adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings), 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_killed_mid_round_goes_on_with_the_next_attempt(room, tmp_path, number):
    settings = job_of(room, *EXACT, "learn.local_steps=20", "learn.state=keep", "learn.rounds=2")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", graphs=True)
        joined = [net.device(device) for device in range(3)]
        server.wait_for("round 2, attempt 2")
        time.sleep(0.5)
        server.kill(number)
        server.wait(20)
        server = net.serve("--resume", tmp_path / "run", graphs=True)
        assert server.wait(300) == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0], [device.lines for device in joined]
    assert_equal_states(adapters_of(tmp_path / "run"), simulated(tmp_path / "local", settings), 1e-7)


def refused(net, server, *arguments):
    """Return the one line with which a device does not join."""
    device = net.device(0, *arguments)
    assert device.wait() == 2, device.lines
    [line] = [line for line in device.lines if line.startswith("sflam: ")]
    assert "attempt 1" not in " ".join(server.lines)
    return line


@pytest.mark.slow
def test_what_it_cannot_do_is_refused_by_name_before_it_joins(room, tmp_path):
    settings = job_of(room, "model.labels=device", "learn.local=fedlc")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", graphs=True)
        assert 'cannot do learn.local = "fedlc"' in refused(net, server)


@pytest.mark.slow
def test_too_little_memory_is_refused_before_it_joins_with_what_it_needs(room, tmp_path):
    with network(tmp_path) as net:
        server = net.serve(*sets(job_of(room)), "--out", tmp_path / "run", graphs=True)
        line = refused(net, server, "--memory", 5)
        needed = int(line.split("MB at least")[0].split()[-1])
        assert f"give --memory {needed}" in line and needed > 5
