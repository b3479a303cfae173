"""Each attack by its arithmetic, and each succeeds where nothing protects: one that cannot proves nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.privacy.decoder import decoded
from sflam.privacy.inversion import descended, variation
from sflam.privacy.labels import clustered, directions, nearest_class
from sflam.privacy.linear import affine_inverse, is_affine
from sflam.privacy.membership import caught, separation
from sflam.privacy.observer import Observer
from sflam.privacy.similarity import cosine, psnr, ssim
from sflam.privacy.tokens import nearest, rouge, trained
from tests.learn.builders import adapted


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_least_squares_inverts_an_affine_map_whatever_its_size():
    draw = torch.Generator().manual_seed(1)
    wide, low = (torch.randn(9, rows, generator=draw, dtype=torch.float64) for rows in (20, 4))
    inputs = torch.randn(5, 3, 3, generator=draw, dtype=torch.float64)
    found = affine_inverse(lambda x: x.flatten(1) @ wide + 2.0, inputs.flatten(1) @ wide + 2.0, inputs)
    assert torch.allclose(found, inputs, rtol=0, atol=1e-6)
    received = inputs.flatten(1) @ low - 1.0
    least = affine_inverse(
        lambda x: x.flatten(1) @ low - 1.0, received, inputs
    )  # fewer numbers than the input has
    expected = (received + 1.0) @ torch.linalg.pinv(low)
    assert torch.allclose(least.flatten(1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "beit", "deit"])
def test_images_come_back_from_before_the_first_block(kind):
    backbone, model, examples = adapted(kind, dtype=torch.float64)
    batch = examples.take(np.arange(4))
    seen = Observer(backbone, model, 0, "uniform", 0)

    def run(pixels):
        return seen.run({"pixel_values": pixels})

    pixels = batch.inputs["pixel_values"]
    assert is_affine(run, pixels[:1])
    back = affine_inverse(run, seen.received(batch, None), pixels)
    assert float((run(back) - run(pixels)).abs().max()) < 1e-5
    if seen.exact(batch).shape[1:].numel() >= pixels[0].numel():  # more numbers than pixels: nothing is lost
        assert float((back - pixels).abs().max()) < 1e-4
    deeper = Observer(backbone, model, 1, "uniform", 0)
    assert not is_affine(lambda pixels: deeper.run({"pixel_values": pixels}), pixels[:1])


def test_what_arrives_is_what_was_encoded():
    backbone, model, examples = adapted("bert", dtype=torch.float64)
    batch = examples.take(np.arange(6))
    seen = Observer(backbone, model, 1, "uniform", 0)
    exact, floats = seen.exact(batch), seen.received(batch, None)
    valid = torch.arange(exact.shape[1])[None, :] < batch.lengths[:, None]
    assert torch.equal(floats[valid], exact[valid]) and not floats[~valid].any()
    errors = [float((seen.received(batch, bits)[valid] - exact[valid]).abs().mean()) for bits in (2, 4, 8)]
    assert 0 < errors[2] < errors[1] / 8 < errors[0] / 8


def test_a_descent_comes_nearer_and_stays_an_image():
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(16, 24, generator=draw) / 4
    images = torch.rand(3, 1, 4, 4, generator=draw)

    def run(pixels):
        return torch.tanh(pixels.flatten(1) @ weight)

    low, high = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    found = descended(run, run(images), images, steps=300, smooth=0.0, low=low, high=high)
    assert float((found - images).abs().mean()) < 0.1 * float((0.5 - images).abs().mean())
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    smooth = descended(run, run(images), images, steps=300, smooth=1.0, low=low, high=high)
    assert bool((variation(smooth) < variation(found)).all())


def test_similarity_is_the_published_one():
    images = np.clip(normal(2, 1, 16, 16) * 0.2 + 0.5, 0, 1)
    assert ssim(images, images) == pytest.approx(1.0) and psnr(images, images) == pytest.approx(100.0)
    assert psnr(images, images + 0.1) == pytest.approx(20.0)
    noisy = [float(ssim(images, images + size * normal(2, 1, 16, 16, seed=1)).mean()) for size in (0.05, 0.2)]
    assert 1 > noisy[0] > noisy[1] > 0
    flat, other = np.full((1, 1, 8, 8), 0.25), np.full((1, 1, 8, 8), 0.75)
    assert ssim(flat, other) == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4))
    assert cosine(np.eye(2), np.array([[3.0, 0.0], [0.0, 0.0]])) == pytest.approx([1.0, 0.0])


def test_a_decoder_learns_what_is_linear():
    weight = normal(6, 9)
    inputs, others = normal(80, 6, seed=1), normal(5, 6, seed=2)
    found = decoded(inputs @ weight + 3, inputs, others @ weight + 3)
    assert found == pytest.approx(others, abs=1e-3)
    noise = decoded(normal(80, 9, seed=3), inputs, normal(5, 9, seed=4))  # nothing to learn: about the mean
    assert np.abs(noise - inputs.mean(0)).max() < 1.0


def test_words_come_back_from_before_the_first_block():
    backbone, model, examples = adapted("bert", dtype=torch.float64)
    batch = examples.take(np.arange(12))
    seen = Observer(backbone, model, 0, "uniform", 0)
    valid = torch.arange(batch.inputs["input_ids"].shape[1])[None, :] < batch.lengths[:, None]
    words = backbone.model.config.vocab_size
    for bits in (None, 8):
        found = nearest(seen, seen.received(batch, bits), words)
        assert torch.equal(found[valid], batch.inputs["input_ids"][valid])


def test_a_classifier_reads_tokens_behind_the_first_block():
    backbone, model, examples = adapted("bert", dtype=torch.float64)
    public, batch = examples.take(np.arange(48)), examples.take(np.arange(48, 60))
    seen = Observer(backbone, model, 1, "uniform", 0)
    known, received = seen.received(public, 8), seen.received(batch, 8)
    there, valid = (
        torch.arange(each.inputs["input_ids"].shape[1])[None, :] < each.lengths[:, None]
        for each in (public, batch)
    )
    found = trained(known[there], public.inputs["input_ids"][there], received[valid])
    right = float((found == batch.inputs["input_ids"][valid]).double().mean())
    assert right > 5 / backbone.model.config.vocab_size


def test_rouge_counts_common_words():
    one, other = np.array([1, 2, 2, 3]), np.array([2, 2, 2, 9])
    assert rouge([one], [other]) == pytest.approx(2 * 2 / 8) and rouge([one], [one]) == 1.0


def test_clusters_and_means_find_classes_that_lie_apart():
    labels = np.arange(90) % 3
    rows = normal(90, 4) * 0.1 + np.eye(3, 4)[labels] * 5
    assert clustered(rows, labels, 3, 0) == 1.0
    assert (nearest_class(rows[:30], labels[:30], rows[30:]) == labels[30:]).all()
    guessed = clustered(normal(900, 4), np.arange(900) % 3, 3, 0)
    assert guessed < 0.45
    assert np.linalg.norm(directions(np.array([[3.0, 4.0], [0.0, 0.0]])), axis=1) == pytest.approx([1.0, 0.0])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12)
)
def test_separation_is_the_chance_that_a_member_scores_lower(members, others):
    pairs = [(a < b) + (a == b) / 2 for a in members for b in others]
    assert separation(members, others) == pytest.approx(np.mean(pairs))
    share = caught(members, others, 0.1)
    alarms = np.mean([b < sorted(others)[int(0.1 * len(others))] for b in others])
    assert 0 <= share <= 1 and alarms <= 0.1
