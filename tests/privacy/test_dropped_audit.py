"""The audit of devices that keep tokens at home: what went up is read, the rest is guessed, and both count."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sflam import config
from sflam.codec.token_drop import TokenDrop
from sflam.model.adapters import state_of
from sflam.privacy.linear import affine_inverse
from sflam.privacy.observer import Observer
from sflam.privacy.subject import subject_of
from sflam.privacy.text_attacks import attack_texts
from sflam.sizes import payload_bytes, sent_tokens
from tests.conftest import assert_refused
from tests.learn.builders import adapted
from tests.tiny import VOCABULARY, WIDTH

HALF = TokenDrop(0.5, 3)


def job_of(folder, *settings):
    path = folder / "job.toml"
    path.write_text(config.to_toml(config.load(None, ["fleet.devices=2", "learn.device=cpu", *settings])))
    return path


def observer_of(kind, cut, drop=HALF, visits=1):
    backbone, model, examples = adapted(kind)
    found = Observer(backbone, model, cut, "uniform", 3)
    if drop:
        found.leave_out(drop, last=kind == "gpt2", visits=visits)
    return found, examples


@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2"])
def test_what_stays_at_home_is_not_received(kind):
    observer, examples = observer_of(kind, 1)
    batch = examples.take(np.arange(8))
    whole, found = observer.received(batch, 8, whole=True), observer.received(batch, 8)
    width = whole.shape[1]
    seen = observer.seen(batch, width)
    assert seen.sum(1).tolist() == [sent_tokens(count, 0.5) for count in batch.counts(width)]
    assert torch.equal(found[seen], whole[seen]) and not found[~seen].any() and whole[~seen].any()
    compact, short = observer.of_a_visit(whole, batch)
    counts = seen.sum(1).tolist()
    assert short.counts(compact.shape[1]) == counts
    for row, count in enumerate(counts):
        assert torch.equal(compact[row, :count], whole[row][seen[row]])


def test_more_visits_show_more_where_steps_draw_anew_and_no_more_where_they_do_not():
    shares = {}
    for visits in (1, 3):
        for anew in (True, False):
            observer, examples = observer_of("vit", 0, TokenDrop(0.5, 3, anew), visits)
            batch = examples.take(np.arange(40))
            shares[visits, anew] = float(observer.seen(batch, 17)[:, 1:].double().mean())
    assert shares[1, True] == shares[1, False] == shares[3, False] == 0.5
    assert shares[3, True] == pytest.approx(1 - 0.5**3, abs=0.04)


def test_the_inverse_of_what_came_is_exact_and_of_the_rest_the_guess():
    observer, examples = observer_of("vit", 0)
    batch = examples.take(np.arange(4))
    pixels = batch.inputs["pixel_values"]
    guess = torch.full_like(pixels, 0.25)
    seen = observer.seen(batch, 17)
    received = observer.received(batch, None)
    found = affine_inverse(
        lambda x: observer.run({"pixel_values": x}) * seen[:, :, None], received, pixels, guess
    )
    patches = seen[:, 1:].view(-1, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    assert torch.allclose(found[patches], pixels[patches], atol=1e-5)
    assert torch.allclose(found[~patches], guess[~patches], atol=1e-12)


def test_of_a_text_the_words_that_went_up_are_read_and_the_others_are_the_commonest():
    scores = {}
    for share in (0.0, 0.5, 0.9):
        observer, examples = observer_of("bert", 0, TokenDrop(share, 3) if share else None)
        targets, public = examples.take(np.arange(20)), examples.take(np.arange(20, 60))
        found = {f.attack: f for f in attack_texts(observer, targets, public, None, VOCABULARY)}
        scores[share] = found["lookup"].score
        valid = targets.counts(10)
        sent = sum(sent_tokens(count, share) for count in valid) / sum(valid)
        assert sent <= scores[share] <= sent + (1 - sent) * 0.2
        assert found["decoder"].score <= sent + (1 - sent) * 0.2
    assert scores[0.0] == 1.0


def test_an_audit_counts_what_goes_up_and_says_what_more_visits_would_show(tmp_path, cli):
    options = ("--cuts", "0", "--bits", "8", "--samples", 6, "--steps", 3, "--pretend", 0, "--json")
    found = {}
    for name, settings, more in (
        ("whole", (), ()),
        ("some", ("privacy.drop_tokens=0.75",), ()),
        ("visits", ("privacy.drop_tokens=0.75",), ("--visits", 8)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        output = cli("audit", job_of(folder, *settings), *options, *more, "--out", folder)
        assert output.code == 0, output.err
        found[name] = json.loads(output.out[-1])
    leaks = {name: each["cells"][0]["leak"] for name, each in found.items()}
    assert leaks["whole"] > 0.99 and leaks["some"] < leaks["visits"] - 0.1 < leaks["whole"] - 0.1, leaks
    sent = {name: each["cells"][0]["bytes_up"] for name, each in found.items()}
    assert sent["whole"] / sent["some"] == pytest.approx(17 / sent_tokens(17, 0.75))
    assert sent["visits"] == sent["some"]
    assert [each["visits"] for each in found.values()] == [1, 1, 8]
    text = " ".join(found["some"]["sentences"])
    assert "those of one visit of a sample, 25.0% of it" in text and "0.75^visits" in text
    assert "8 visits of a sample, 90.0% of it" in " ".join(found["visits"]["sentences"])
    assert not any("visit" in each for each in found["whole"]["sentences"])


def test_accuracy_is_of_predictions_that_send_all_and_members_of_what_came(small, tmp_path, cli):
    import sflam

    run = tmp_path / "run"
    sflam.train(config.load(None, [*small, "privacy.drop_tokens=0.5", "privacy.drop_draw=sample"]), run)
    options = ("--bits", "32", "--samples", 2, "--steps", 2, "--pretend", 0, "--json")
    output = cli("audit", run, "--cuts", "0,2", *options)
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    result = json.loads((run / "result.json").read_text())
    for cell in found["cells"]:
        assert cell["accuracy"] == pytest.approx(result["accuracy"], abs=1e-6)
        hidden = payload_bytes(sent_tokens(17, 0.5), WIDTH, 32, "identity")
        assert cell["bytes_up"] == hidden
    members = [each for each in found["findings"] if each["about"] == "members"]
    assert {each["cut"] for each in members} == {0, 2}, "what is dropped at a cut changes the loss"
    assert any("the same in all visits" in each for each in found["sentences"])
    subject = subject_of(run)
    assert state_of(subject.model)


def test_visits_without_dropped_tokens_are_refused(tmp_path, cli):
    job = job_of(tmp_path)
    assert_refused(
        cli("audit", job, "--visits", 2, "--out", tmp_path), r"--visits is 2; .*privacy\.drop_tokens"
    )
    dropped = job_of(tmp_path, "privacy.drop_tokens=0.5")
    assert_refused(cli("audit", dropped, "--visits", 0, "--out", tmp_path), r"--visits is 0; give 1 or more")
