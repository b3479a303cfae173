"""What a line of a comparison trains."""

from __future__ import annotations

from sflam import config
from sflam.compare.variants import variant
from sflam.run.compatibility import check


def test_a_line_is_the_method_of_its_name():
    """Keys that a method's name sets are its own, whatever the job sets; what it cannot have is left out."""
    wanted = config.load(
        None, ["learn.local=scaffold", "learn.weights=samples", "fleet.selected=2", "fleet.policy=samples"]
    )
    assert variant(wanted, "fedprox", 0).learn.practice.local == "fedprox"
    assert variant(wanted, "sflam", 0).learn.practice.local == "scaffold"
    assert variant(wanted, "sflam", 0).fleet.policy == variant(wanted, "fedlora", 0).fleet.policy == "samples"
    relay = variant(wanted, "sl", 0)
    assert relay.fleet.policy == "uniform" and relay.learn.practice.weights == "equal"
    for method in ("sflam", "sflam-mixed", "sl", "fedlora", "fedprox", "central"):
        check(variant(wanted, method, 0))
    assert variant(wanted, "sflam-mixed", 0).sampling == "local", "devices are drawn by their samples already"


def test_a_line_has_the_rate_the_state_and_the_sampling_of_its_method_where_the_job_sets_none():
    found = {name: variant(config.load(None, []), name, 0) for name in ("sflam", "sflam-mixed", "fedlora")}
    kept = {
        name: (job.learn.practice.lr, job.learn.practice.state, job.sampling) for name, job in found.items()
    }
    usual = (3e-3, "reset", "local")
    assert kept == {"sflam": usual, "sflam-mixed": (1e-3, "keep", "global"), "fedlora": usual}
    wanted = config.load(None, ["learn.lr=0.01", "learn.state=reset", "data.sampling=local"])
    for name in found:
        job = variant(wanted, name, 0)
        assert (job.learn.practice.lr, job.learn.practice.state, job.sampling) == (0.01, "reset", "local")


def test_the_method_of_mixed_groups_goes_with_what_global_sampling_does_not():
    for setting in ("data.buckets=true", "fleet.servers=[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]"):
        job = variant(config.load(None, [setting]), "sflam-mixed", 0)
        assert job.sampling == "local"
        check(job)
