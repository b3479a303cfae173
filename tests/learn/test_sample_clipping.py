"""DP-SGD of what devices train: gradients of samples against one sample at a time, sums against the hand's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.codec.guard import guard_of
from sflam.codec.legs import SAMPLES
from sflam.codec.settings import QuantSettings
from sflam.config import load
from sflam.learn.fit import built_step
from sflam.learn.sample_clipping import SampleClipping
from sflam.model.adapters import state_of
from sflam.model.stack import AdapterStack
from sflam.planner.cell import workload_of
from sflam.privacy.settings import PrivacySettings
from tests.learn.builders import LEARN, adapted, assert_equal_states, local_fleet, parts_of, run
from tests.tiny import KINDS

SIZES = (7, 12, 5)
ENDLESS = guard_of(PrivacySettings(sample_clip=1e300), 3)
SGD = replace(
    LEARN, rounds=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=0.0, local_steps=1, lr=1.0
)


def moved(kind, *, guard, parts, labels="server", learn=SGD, **options):
    """Return what one round moved on the devices' side, device -> [P], and the names of the trained tensors."""
    backbone, model, examples = adapted(kind)
    fleet = local_fleet(
        backbone, model, examples, parts, cut=2, labels=labels, learn=learn, guard=guard, **options
    )
    start = state_of(model)
    fleet.download(0, range(len(parts)), start)
    stack = fleet.devices.segment.stack
    before = stack.values.detach().clone()
    fleet.local_steps(0, list(range(len(parts))))
    return (before - stack.values.detach()), fleet


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_each_sample_is_that_of_a_batch_of_it_alone(kind, labels) -> None:
    """One step at rate 1 moves by the gradient; with an own trunk a device's rows see one and the same trunk."""
    clip = 0.05
    alone = []
    for sample in range(4):
        step, _ = moved(kind, guard=None, parts=[np.array([sample])], labels=labels)
        alone.append(step[0])
    norms = torch.stack(alone).norm(dim=1)
    assert (norms > clip).any() and (norms > 0).all()
    wanted = sum(g * min(1.0, clip / float(n)) for g, n in zip(alone, norms, strict=True)) / 4
    guard = guard_of(PrivacySettings(sample_clip=clip), 3)
    both, _ = moved(kind, guard=guard, parts=[np.arange(4), np.array([4]), np.arange(5, 12)], labels=labels)
    near = 1e-6 if kind == "gpt2-lm" else 1e-9  # the loss of a language model is in float32
    assert (both[0] - wanted).abs().max() < near * wanted.abs().max()
    assert all(row.norm() <= clip * (1 + 1e-9) for row in both)


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_an_endless_clip_without_noise_is_the_ordinary_step(kind, labels) -> None:
    for options in ({}, {"sampling": "poisson"} if labels == "server" else {"learn": LEARN}):
        states = []
        for guard in (ENDLESS, None):
            backbone, model, examples = adapted(kind)
            fleet = local_fleet(
                backbone,
                model,
                examples,
                parts_of(SIZES),
                cuts=(1, 3, 2),
                labels=labels,
                guard=guard,
                **options,
            )
            states.append(run(fleet, state_of(model), 2)[1])
        assert_equal_states(*states, 1e-12)


def test_lower_ranks_absent_seats_and_checkpoints_change_nothing_but_who_is_clipped() -> None:
    """Of an endless clip: devices of other ranks, fewer seats than devices, and blocks computed again."""
    for options in (
        {"ranks": (1, 2, 1)},
        {"selected": 2},
        {"learn": replace(LEARN, checkpointing=True)},
        {"learn": replace(LEARN, canonical=True)},
    ):
        states = []
        for guard in (ENDLESS, None):
            backbone, model, examples = adapted("vit")
            fleet = local_fleet(backbone, model, examples, parts_of(SIZES), cut=2, guard=guard, **options)
            states.append(run(fleet, state_of(model), 2)[1])
        assert_equal_states(*states, 1e-12)


def test_what_a_server_runs_in_several_passes_is_clipped_alike() -> None:
    guard = guard_of(PrivacySettings(sample_clip=0.01, sample_noise=0.5), 3)
    states = []
    for options in ({}, {"learn": replace(LEARN, memory_gb=1e-3)}):
        backbone, model, examples = adapted("vit")
        fleet = local_fleet(backbone, model, examples, parts_of(SIZES), cut=2, guard=guard, **options)
        states.append(run(fleet, state_of(model), 1)[1])
    assert_equal_states(*states, 1e-9)


def test_a_sum_is_clipped_summed_and_noisy_as_by_hand() -> None:
    privacy = PrivacySettings(sample_clip=2.0, sample_noise=0.5)
    guard = guard_of(privacy, 3)
    stack = AdapterStack({"a": torch.zeros(2), "b": torch.zeros(3)}, 2, torch.float64)
    clipping = SampleClipping(guard)
    clipping.expected = {1: 8}
    batch = adapted("vit")[2].take(np.arange(2))
    clipping.begin({1: batch}, {1: 77})
    # As of a mean over the rows that came, [3, 4] and [0.3, 0.4] in two columns, norms 5 and 0.5.
    clipping.add([1], [2], torch.tensor([[1.5, 2.0, 0, 0, 0], [0.15, 0.2, 0, 0, 0]]).double(), returned=False)
    columns = torch.tensor([0, 1, 4])
    stack.begin([1])
    clipping.give(stack, 1, columns)
    noise = guard.noise_of_sum(3, 77)
    wanted = (np.array([3 * 0.4 + 0.3, 4 * 0.4 + 0.4, 0.0]) + noise) / 8
    assert np.allclose(stack.grads[1, columns].numpy(), wanted, atol=1e-15)
    assert (stack.grads[1, 2:4] == 0).all() and (stack.grads[0] == 0).all()
    assert not np.array_equal(noise, guard.noise_of_sum(3, 78))


def test_the_memory_counts_a_gradient_of_every_sample_for_plans_and_for_what_is_built() -> None:
    plain, apart = (
        np.array(workload_of(load(None, [f"privacy.sample_clip={clip}", "learn.batch=8"])).device_memory)
        for clip in (0, 1)
    )
    more = apart - plain
    assert (
        more[0] == 0 and (np.diff(more) > 0).all() and (more % (8 * 4) == 0).all()
    )  # rows of a float32 number
    built = []
    for guard in (None, ENDLESS):
        backbone, model, examples = adapted("vit", dtype=torch.float32)
        fleet = local_fleet(backbone, model, examples, parts_of(SIZES), cut=2, guard=guard)
        built.append(fleet.memory(built_step(backbone, 17, LEARN)))
    numbers = fleet.devices.segment.stack.size()
    assert built[1].device.trained - built[0].device.trained == 4 * 4 * numbers
    assert built[1].process.trained - built[0].process.trained == 3 * 4 * 4 * numbers
    assert built[1].server == built[0].server


def test_noise_is_normal_of_the_deviation_that_is_asked_for() -> None:
    guard = guard_of(PrivacySettings(sample_clip=2.0, sample_noise=1.5), 3)
    draws = guard.noise_of_sum(200_000, 5)
    assert draws.std() == pytest.approx(3.0, rel=0.01) and abs(draws.mean()) < 0.03
    kurtosis = ((draws / 3.0) ** 4).mean()
    assert kurtosis == pytest.approx(3.0, rel=0.03)
    assert (guard_of(PrivacySettings(sample_clip=2.0), 3).noise_of_sum(4, 5) == 0).all()
    assert not np.array_equal(replace(guard, secret=b"own").noise_of_sum(4, 5), guard.noise_of_sum(4, 5))


def test_no_sample_moves_a_step_by_more_than_its_clip() -> None:
    """Another image in one place, however large: the mean over the step's B rows moves by 2 C / B at most."""
    clip, found = 0.02, []
    for swap in (0, 30):
        guard = guard_of(PrivacySettings(sample_clip=clip), 3)
        step, _ = moved(
            "vit",
            guard=guard,
            parts=[np.array([swap or 1, 2, 3, 4])],
            quant=QuantSettings(bits_up=6, bits_down=6),
        )
        found.append(step[0])
    apart = (found[0] - found[1]).norm()
    assert 0 < apart <= 2 * clip / 4 * (1 + 1e-9)
    assert guard.clips[SAMPLES] == clip
