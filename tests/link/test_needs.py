"""What a job asks of a device is named before the device joins."""

from __future__ import annotations

import pytest

from sflam import config
from sflam.errors import ServeError
from sflam.link.needs import expect_offered, needs_of

ALL = {
    "model.trainable": {"lora", "lora+head"},
    "model.labels": {"server", "device"},
    "model.dtype": {"float32"},
    "learn.optimizer": {"adamw", "sgd"},
    "learn.device_half": {"trained", "frozen"},
    "learn.aggregation": {"fedavg", "freeze-a"},
    "learn.local": {"plain"},
    "learn.cache": {"off"},
    "learn.loss": {"cross-entropy"},
    "learn.canonical": {"false"},
    "data.sampling": {"local"},
    "data.draw": {"passes"},
    "quant.delta": {"false"},
    "privacy": {"none"},
    "privacy.sample_clip": {"none"},
    "privacy.clip_loss": {"none"},
    "privacy.distance_correlation": {"none"},
    "privacy.drop_tokens": {"none"},
    "privacy.secure_aggregation": {"false"},
    "plugins": {"none"},
}


def test_a_job_that_a_device_can_do_is_accepted() -> None:
    expect_offered(config.load(None, ["learn.loss=focal", "learn.checkpointing=true"]), ALL, "a lean device")


def test_every_setting_it_cannot_do_is_named_with_what_it_can() -> None:
    job = config.load(None, ["learn.local=fedprox", "model.labels=device", "learn.loss=focal"])
    with pytest.raises(ServeError) as refusal:
        expect_offered(job, ALL, "a lean device")
    for text in ('learn.local = "fedprox"', 'learn.loss = "focal"', "learn.local: plain", "sflam join"):
        assert text in str(refusal.value)
    assert "model.labels" not in str(refusal.value)


def test_a_device_that_clips_no_samples_is_refused_by_name() -> None:
    job = config.load(None, ["privacy.sample_clip=1"])
    with pytest.raises(ServeError, match=r"privacy.sample_clip = \"some\"") as refusal:
        expect_offered(job, ALL | {"privacy": {"none", "some"}}, "a device without torch")
    assert "privacy =" not in str(refusal.value) and "sflam join" in str(refusal.value)


def test_what_a_method_sets_by_its_name_counts() -> None:
    assert needs_of(config.load(None, ["learn.method=ffa-lora"]))["learn.aggregation"] == "freeze-a"


def test_a_kind_that_leaves_a_setting_out_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        expect_offered(config.load(None), {}, "a lean device")
