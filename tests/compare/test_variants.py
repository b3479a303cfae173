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
