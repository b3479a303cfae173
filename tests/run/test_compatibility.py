"""The table of settings that do not go together: every row is broken by an example of its own, and by that alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sflam import config
from sflam.errors import ConfigError
from sflam.learn.settings.practice import METHODS
from sflam.run.compatibility import RULES, check
from sflam.run.conditions import COMMANDS, PLAN, Rule
from sflam.run.ranks_check import check_ranks
from tests.run.privacy_examples import PRIVACY
from tests.run.trunk_examples import TRUNKS
from tests.run.uneven_examples import UNEVEN

ROOT = Path(__file__).parents[2]
NO_JOBS = {"pyproject.toml", "study.toml"}
FOUND = sorted([*ROOT.glob("configs/*/*.toml"), *ROOT.glob("examples/**/*.toml")])
SHIPPED = [path for path in FOUND if path.name not in NO_JOBS]
RESIDUAL, FULL, FEDLORA = "learn.aggregation=residual", "model.trainable=full", "learn.method=fedlora"
LABELS, MEASURED, CALIBRATED = "model.labels=device", "plan.measure_every=5", "network.calibrate=true"
SQUARE = ('network.scenario="square"', "network.servers=2")
PUBLISHED = 'plan.counts="activations"'
CUT = 'plan.optimize=["clock", "cut"]'
DELTA = "quant.delta=true"
AVERAGED, FROZEN = "learn.device_half=averaged", "learn.device_half=frozen"
FEDLC, SVD = "learn.local=fedlc", "learn.aggregation=svd"
CUTS, GLOBAL = ("fleet.devices=2", "fleet.cuts=[1, 2]"), "data.sampling=global"
HEAD, OWN_HALF = "learn.personal=head", "learn.personal=device-half"
COMMON = ("quant.adapters_scale=common", "quant.bits_adapters=8")
RANKS = ("fleet.devices=2", "fleet.ranks=[1, 4]")
TABLES = ("network.device", "network.server")
DEFAULTS = {
    "model.cut",
    "model.trainable",
    "model.name",
    "model.labels",
    "learn.method",
    "learn.server_update",
    "network.simulate",
    "data.column",
    "data.indices",
}
DEFAULTS |= {
    "network.access",
    "fleet.plan",
    "network.scenario",
    "network.servers",
    "plan.deadline",
    "plan.subchannels",
}
"""Keys of messages that an example leaves as they are."""

TUNED = ("fleet.devices=2", "fleet.tuned=[1, -1]")

EXAMPLES: dict[str, tuple[str, ...]] = {
    "measured-elsewhere": ("fleet.plan=measured",),
    "measured-cut": ("fleet.plan=measured", CUT),
    "measured-tuned": ("fleet.plan=measured", 'plan.optimize=["clock", "tuned"]'),
    "measured-method": ("fleet.plan=measured", "plan.method=equal"),
    "measured-identity": ("fleet.plan=measured", 'plan.optimize=["bits"]', "quant.scheme=identity"),
    "measured-down-labels": ("fleet.plan=measured", 'plan.optimize=["bits", "bits_down"]', LABELS),
    "several-calibrated": (*SQUARE, "network.device=[{latency_ms=1.0}]"),
    "probe-unplanned": ("plan.probe=true",),
    "pace-unplanned": ("plan.pace=true",),
    "pace-apart": ("plan.pace=true", "fleet.plan=measured"),
    "tuned-all": (*TUNED, "model.tuned=2"),
    "tuned-full": (*TUNED, FULL),
    "tuned-adapter": (*TUNED, "model.adapter=there"),
    "tuned-unsplit": (*TUNED, FEDLORA),
    "tuned-shared": (*TUNED, "learn.method=sfl-v2"),
    "tuned-averaged": (*TUNED, AVERAGED),
    "tuned-aggregation": (*TUNED, SVD),
    "tuned-local": (*TUNED, "learn.local=fedprox"),
    "tuned-personal": (*TUNED, OWN_HALF),
    "tuned-cell": ('plan.optimize=["clock", "tuned"]',),
    "tuned-last": (*SQUARE, *TUNED),
    "tuned-cuts": (*SQUARE, *CUTS, 'plan.optimize=["clock", "tuned"]', "fleet.tuned=[]"),
    "tuned-fit": ("plan.fit_weight=1", "plan.fit=[]"),
    "plan-and-tuned": ("fleet.plan=computed", *TUNED),
    "full-factors": (FULL, "learn.aggregation=freeze-a"),
    "full-adapter": (FULL, "model.adapter=there"),
    "full-tuned": (FULL, "model.tuned=2"),
    "full-bfloat16": (FULL, "model.dtype=bfloat16"),
    "fedavg-adapters": ("learn.method=fedavg",),
    "whole-full": (FEDLORA, FULL),
    "whole-residual": (FEDLORA, RESIDUAL),
    "local-best": ("learn.method=local", "learn.keep=best"),
    "keep-evaluate": ("learn.keep=best", "learn.evaluate_every=0"),
    "stop_after-evaluate": ("learn.stop_after=3", "learn.evaluate_every=0"),
    "best-residual": ("learn.keep=best", RESIDUAL),
    "trunk-bits-residual": ("model.trunk_bits=4", RESIDUAL),
    "trunk-bits-full": ("model.trunk_bits=8", FULL),
    "trunk-bits-float64": ("model.trunk_bits=8", "model.dtype=float64"),
    "partition-column": ("data.partition=column",),
    "partition-file": ("data.partition=file",),
    "flipped-devices": ("data.flipped=0.5", "data.flipped_devices=[0, 7]", "fleet.devices=4"),
    "flipped-unlabelled": ("data.flipped=0.5", 'data.label=""'),
    "cache-unsplit": ("learn.cache=device", FEDLORA),
    "cache-deep": ("learn.cache=server",),
    "relay-cuts": ("learn.method=sl", "fleet.devices=2", "fleet.cuts=[1, 2]"),
    "unsplit-trunk": (FEDLORA, "learn.trunk=shared"),
    "unsplit-server_update": (FEDLORA, "learn.server_update=batched"),
    "unsplit-device_half": (FEDLORA, "learn.device_half=frozen"),
    "update-apart": ("learn.server_update=mixed",),
    "server-batch": ("learn.method=sflam-mixed", "learn.server_update=batched", "learn.server_batch=8"),
    "relay-apart": ("learn.method=sl", "learn.trunk=per-device"),
    "relay-update": ("learn.method=sl", "learn.server_update=batched"),
    "relay-half": ("learn.method=sl", AVERAGED),
    "personal-method": ("learn.method=central", HEAD),
    "personal-relay": ("learn.method=sl", HEAD, LABELS),
    "personal-full": (FULL, HEAD),
    "personal-best": ("learn.keep=best", HEAD),
    "personal-residual": (RESIDUAL, HEAD),
    "personal-averaged": (AVERAGED, HEAD),
    "personal-serve": (OWN_HALF,),
    "personal-serve-labels": (HEAD, LABELS),
    "head-shared": (HEAD, "learn.trunk=shared", "model.labels=server"),
    "own-half-unsplit": (OWN_HALF, FEDLORA),
    "own-half-frozen": (OWN_HALF, FROZEN),
    "own-half-cuts": (OWN_HALF, *CUTS),
    "own-half-servers": (OWN_HALF, "fleet.devices=2", "fleet.servers=[0, -1]"),
    "own-half-moving": (OWN_HALF, CUT),
    "ranks-above": (*RANKS, "model.rank=2"),
    "ranks-full": (FULL, *RANKS),
    "ranks-method": ("learn.method=central", *RANKS),
    "ranks-relay": ("learn.method=sl", *RANKS),
    "ranks-residual": (RESIDUAL, *RANKS),
    "ranks-averaged": (AVERAGED, *RANKS),
    "ranks-frozen": (FROZEN, "learn.trunk=shared", *RANKS),
    "averaged-cuts": (AVERAGED, *CUTS),
    "frozen-cuts": (FROZEN, *CUTS),
    "averaged-servers": (AVERAGED, "fleet.devices=2", "fleet.servers=[0, -1]"),
    "frozen-servers": (FROZEN, "fleet.devices=2", "fleet.servers=[0, -1]"),
    "averaged-moving": (AVERAGED, CUT),
    "frozen-moving": (FROZEN, CUT),
    "frozen-full": (FROZEN, FULL),
    "delta-unquantized": (DELTA, "learn.method=sfl-v2"),
    "delta-cache": (DELTA, "learn.cache=device", "model.cut=0"),
    "delta-identity": (DELTA, "quant.scheme=identity"),
    "delta-serve": (DELTA,),
    "delta-moving": (DELTA, CUT),
    "delta-bits": (DELTA, 'plan.optimize=["bits"]'),
    "delta-measure": (DELTA, "plan.measure_every=2"),
    "several-averaged": (*SQUARE, AVERAGED),
    "several-frozen": (FROZEN, "network.scenario=square", "network.servers=2"),
    "averaged-serve": (AVERAGED,),
    "mixed-labels": (LABELS, "learn.method=sflam-mixed"),
    "global-labels": (LABELS, "learn.method=sfl-v2", GLOBAL),
    "relay-weights": ("learn.method=sl", "learn.weights=samples"),
    "averaged-selected": (AVERAGED, "learn.state=keep", "fleet.selected=2"),
    "weights-labels": (LABELS, "learn.method=sfl-v2", "learn.weights=samples"),
    "lone-local": ("learn.method=central", "learn.local=fedprox"),
    "lone-server_optimizer": ("learn.method=local", "learn.server_optimizer=adam"),
    "lone-aggregation": ("learn.method=sl", SVD),
    "drift-averaged": (AVERAGED, "learn.local=scaffold"),
    "drift-nothing": ("learn.method=sfl-v2", "learn.local=fedprox", "model.cut=0"),
    "drift-ranks": ("learn.local=scaffold", "fleet.devices=2", "fleet.ranks=[2, 4]"),
    "fedlc-shared": ("learn.method=sfl-v2", FEDLC),
    "fedlc-labels": (FEDLC, 'data.label=""'),
    "fedlc-loss": ("learn.method=fedlc", "learn.loss=focal"),
    "svd-optimizer": (SVD, "learn.server_optimizer=yogi"),
    "svd-scaffold": ("learn.method=flexlora", "learn.local=scaffold"),
    "svd-keep": (SVD, "learn.state=keep"),
    "residual-optimizer": (RESIDUAL, "learn.server_optimizer=momentum"),
    "scaffold-moving": (CUT, "learn.local=scaffold"),
    "scaffold-serve": ("learn.local=scaffold",),
    "fedlc-serve": (FEDLC,),
    "global-unsplit": (GLOBAL, FEDLORA),
    "global-buckets": (GLOBAL, "data.buckets=true"),
    "global-servers": (GLOBAL, "fleet.devices=2", "fleet.servers=[0, 1]"),
    "global-several": (GLOBAL, *SQUARE),
    "plan-and-cuts": ("fleet.plan=computed", "fleet.devices=2", "fleet.cuts=[1, 1]"),
    "plan-and-servers": ("fleet.plan=computed", "fleet.devices=2", "fleet.servers=[0, 1]"),
    "plan-and-bits_up": ("fleet.plan=computed", "fleet.devices=2", "fleet.bits_up=[4, 8]"),
    "plan-and-bits_down": ("fleet.plan=computed", "fleet.devices=2", "fleet.bits_down=[4, 8]"),
    "plan-unsplit": ("fleet.plan=computed", "learn.method=central"),
    "serve-unsplit": (FEDLORA,),
    "serve-cache": ("learn.cache=server", "model.cut=0"),
    "serve-residual": (RESIDUAL,),
    "serve-simulate": ("network.simulate=true",),
    "serve-full": (FULL,),
    "serve-sequential": (LABELS, "learn.method=sfl-v2"),
    "policy-samples-lone": ("fleet.policy=samples", "learn.method=sl"),
    "policy-samples-global": ("fleet.policy=samples", GLOBAL),
    "policy-samples-servers": ("fleet.policy=samples", "fleet.devices=2", "fleet.servers=[0, -1]"),
    "policy": ("fleet.policy=channel",),
    "simulate-method": ("learn.method=central",),
    "labels-plan.measure_every": (LABELS, MEASURED),
    "labels-network.calibrate": (LABELS, CALIBRATED),
    "simulate-full": (*SQUARE, FULL),
    "simulate-fleet.bits_up": ("fleet.devices=2", "fleet.bits_up=[4, 8]"),
    "simulate-fleet.bits_down": ("fleet.devices=2", "fleet.bits_down=[4, 8]"),
    "calibrate-whole": (CALIBRATED, FEDLORA),
    "bits-cache": ('plan.optimize=["bits"]', "learn.cache=server", "model.cut=0"),
    "cache-variable": ("learn.cache=server", "model.cut=0", "quant.scheme=topk"),
    "measure-variable": (MEASURED, "quant.scheme=topk"),
    "bits-variable": ('plan.optimize=["bits"]', "quant.scheme=topk"),
    "plan-bits-variable": ("fleet.plan=computed", 'plan.optimize=["bits"]', "quant.scheme=topk"),
    "measure-identity": (MEASURED, "quant.scheme=identity"),
    "server-of-one": ("fleet.devices=2", "fleet.servers=[0, 1]"),
    "cut-method": (CUT, "learn.method=sl"),
    "cut-cuts": (CUT, "fleet.devices=2", "fleet.cuts=[1, 2]"),
    "cut-state": (*SQUARE, "learn.state=keep"),
    "cut-cache": (CUT, "learn.cache=device", "model.cut=0"),
    "cut-plan.budget": (CUT, "plan.budget=1"),
    "cut-plan.measure_every": (CUT, MEASURED),
    "cut-network.calibrate": (CUT, CALIBRATED),
    "endless": ("plan.latency_weight=0",),
    "budget-method": ("plan.budget=1", "plan.method=equal"),
    "budget-bits": ("plan.budget=1", 'plan.optimize=["bits"]'),
    "budget-every": ("plan.budget=1", "plan.every=2"),
    "subchannels": ("plan.method=bcd-matching",),
    "subchannel-bits": ("plan.method=fixed-bits", "plan.subchannels=20"),
    "subchannel-band": ("plan.method=bits", "plan.subchannels=20"),
    "subchannel-cut": ("plan.method=cut", "plan.subchannels=20"),
    "plan-subchannel-bits": ("fleet.plan=computed", "plan.method=bits", "plan.subchannels=20"),
    "ref-labels": ("network.scenario=refA", LABELS),
    "cell-servers": ("network.servers=2",),
    "listed-devices-device": ("network.devices=7", "network.device=TABLES"),
    "listed-devices-profiles": ("network.devices=7", 'network.profiles={"phone" = 3}'),
    "listed-servers-server": ("network.servers=3", "network.scenario=square", "network.server=TABLES"),
    "ref-fading": ("network.scenario=refA", "network.fading=rician"),
    "trace-servers": (*SQUARE, "network.trace=gains.csv"),
    "airtime-method": ("network.access=airtime", "plan.method=oracle"),
    "airtime-subchannels": ("network.access=airtime", "plan.subchannels=40"),
    "airtime-servers": (*SQUARE, "network.access=airtime"),
    "timing-relay": ("learn.method=sl", "plan.timing=chain"),
    "timing-unsplit": (FEDLORA, "plan.timing=barrier"),
    "timing-several": (*SQUARE, "plan.timing=barrier"),
    "several-method": (*SQUARE, FEDLORA),
    "several-allocator": (*SQUARE, "plan.method=bcd"),
    "several-bits": (*SQUARE, 'plan.optimize=["bits"]'),
    "common-floats": ("quant.adapters_scale=common", "quant.bits_adapters=32"),
    "common-method": ("quant.adapters_scale=common", "quant.bits_adapters=8", "learn.method=sfl-v1"),
    "common-identity": ("quant.adapters_scale=common", "quant.bits_adapters=8", "quant.scheme=identity"),
    "common-cuts": (*COMMON, "fleet.devices=2", "fleet.cuts=[1, 2]"),
    "common-ranks": (*COMMON, "fleet.devices=2", "fleet.ranks=[1, 2]"),
    "common-tuned": (*COMMON, "fleet.devices=2", "fleet.tuned=[1, 2]"),
    "common-moving": ("quant.adapters_scale=common", "quant.bits_adapters=8", 'plan.optimize=["cut"]'),
    "down-up": ('plan.optimize=["clock","bits_down"]',),
    "down-method": ("plan.method=bcd", 'plan.optimize=["bits","bits_down"]'),
    "down-cut": ('plan.optimize=["bits","bits_down","cut"]',),
    "down-labels": (LABELS, 'plan.optimize=["bits","bits_down"]'),
    "down-frozen": ("learn.device_half=frozen", 'plan.optimize=["bits","bits_down"]'),
    "several-plan.sensitivity_down": (*SQUARE, "plan.sensitivity_down=0.1"),
    "several-plan.deadline": (*SQUARE, "plan.deadline=1"),
    "several-plan.radio_cap": (*SQUARE, "plan.radio_cap=1"),
    "several-plan.compute_cap": (*SQUARE, "plan.compute_cap=1"),
    "several-plan.energy_cap": (*SQUARE, "plan.energy_cap=1"),
    "several-plan.subchannels": (*SQUARE, "plan.subchannels=20"),
    "several-plan.sensitivity": (*SQUARE, "plan.sensitivity=0.1"),
    "several-network.downlink_mbps": (*SQUARE, PUBLISHED, "network.downlink_mbps=10"),
    "several-network.backhaul_mbps": (*SQUARE, PUBLISHED, "network.backhaul_mbps=10"),
    "unused-network.backhaul_mbps": ("network.simulate=true", "network.backhaul_mbps=10"),
    "several-plan.budget": (*SQUARE, "plan.budget=1"),
    "several-plan.measure_every": (*SQUARE, MEASURED),
    "several-plan.late": (*SQUARE, "plan.late=drop"),
    "several-network.battery_j": (*SQUARE, "network.battery_j=5"),
    "several-network.calibrate": (*SQUARE, CALIBRATED),
}
LEAN = "device.runtime=lean"
EXAMPLES |= {
    "lean-trunkless": (LEAN, FEDLORA),
    "lean-trainable": (LEAN, FULL),
    "lean-dtype": (LEAN, "model.dtype=bfloat16"),
    "lean-device_half": (LEAN, "learn.device_half=averaged"),
    "lean-aggregation": (LEAN, RESIDUAL),
    "lean-local": (LEAN, "learn.local=scaffold"),
    "lean-cache": (LEAN, "learn.cache=server", "model.cut=0"),
    "lean-delta": (LEAN, "quant.delta=true"),
    "lean-answers": (LEAN, "data.answer=reply", "data.label="),
    "weights-trainable": ("device.weights=int8", FULL),
    "weights-dtype": ("device.weights=float16", "model.dtype=bfloat16"),
    "weights-aggregation": ("device.weights=int8", RESIDUAL),
}
EXAMPLES |= {
    "flower-selected": ("fleet.selected=3",),
    "flower-aggregation": ("learn.aggregation=freeze-a",),
    "flower-optimizer": ("learn.server_optimizer=momentum",),
    "flower-ranks": RANKS,
    "flower-tuned": TUNED,
    "flower-personal": (HEAD,),
    "flower-servers": ("fleet.devices=2", "fleet.servers=[1, 0]"),
    "flower-planned": ("fleet.plan=measured",),
    "on-ranks-unsplit": (FEDLORA,),
    "on-ranks-relay": ("learn.method=sl",),
    "on-ranks-home-shared": (LABELS, "learn.method=sfl-v2"),
    "on-ranks-home-canonical": (LABELS, "learn.canonical=true"),
    "on-ranks-averaged": (AVERAGED,),
    "on-ranks-residual": (RESIDUAL,),
    "on-ranks-scaffold": ("learn.local=scaffold",),
    "on-ranks-cache": ("learn.cache=device", "model.cut=0"),
    "on-ranks-delta": (DELTA,),
}
EXAMPLES |= {
    "unused-prox": ("learn.prox=0.1", "learn.local=plain"),
    "unused-logit_tau": ("learn.logit_tau=0.5", "learn.local=fedprox"),
    "unused-server_lr": ("learn.server_lr=0.5", "learn.server_optimizer=none"),
    "unused-server_momentum": ("learn.server_momentum=0.5", "learn.server_optimizer=none"),
    "unused-server_beta2": ("learn.server_beta2=0.5", "learn.server_optimizer=momentum"),
    "unused-server_epsilon": ("learn.server_epsilon=0.5", "learn.server_optimizer=momentum"),
    "unused-momentum": ("learn.momentum=0.5", "learn.optimizer=adamw"),
    "unused-smoothing": ("learn.smoothing=0.2", "learn.loss=focal"),
    "unused-focal_gamma": ("learn.focal_gamma=1.0", "learn.loss=label-smoothing"),
    "unused-weights": ("learn.weights=samples", "learn.method=central"),
    "unused-alpha": ("data.alpha=0.1", "data.partition=iid"),
    "unused-shards": ("data.shards=3", "data.partition=iid"),
    "unused-column": ("data.column=writer", "data.partition=shards"),
    "unused-indices": ("data.indices=who.json", "data.partition=shards"),
    "unused-clusters": ("data.clusters=3", "data.partition=iid"),
    "unused-device-receive_power_w": (
        "network.device=[{gain_db = -100, receive_power_w = 0.1}]",
        "network.downlink_mbps=0.0",
    ),
    "unused-receive_power_w": ("network.receive_power_w=0.1", "network.downlink_mbps=0.0"),
    **UNEVEN,
    **PRIVACY,
    **TRUNKS,
    "unused-flipped_devices": ("data.flipped_devices=[1]", "data.flipped=0.0"),
}


def read(*overrides: str) -> config.Job:
    """Return a job; ``TABLES`` stands for two plain tables."""
    return config.load(None, [override.replace("TABLES", "[{}, {}]") for override in overrides])


def broken(job: config.Job, command: str) -> dict[str, str]:
    return {rule.name: message for rule in RULES if (message := rule.broken(job, command))}


def test_every_row_has_a_name_and_an_example() -> None:
    names = [rule.name for rule in RULES]
    assert sorted(names) == sorted(EXAMPLES) and len(set(names)) == len(names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_example_breaks_its_row_alone(rule: Rule) -> None:
    job = read(*EXAMPLES[rule.name])
    found = {command: broken(job, command) for command in COMMANDS}
    assert [command for command in COMMANDS if rule.name in found[command]] == list(rule.commands)
    assert any(set(found[command]) == {rule.name} for command in rule.commands)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_message_names_the_keys_with_their_values_the_reason_and_the_fix(rule: Rule) -> None:
    job, command = read(*EXAMPLES[rule.name]), rule.commands[0]
    text = rule.broken(job, command)
    named, reason = text.split(": ", 1)
    assert reason == f"{rule.why}; {rule.fix}"
    keys = dict(re.findall(r"(\w+\.\w+) = (.+?)(?:,? and |, (?=\w+\.)| do(?:es)? not go )", named))
    assert keys and keys.keys() <= {item.partition("=")[0] for item in EXAMPLES[rule.name]} | DEFAULTS
    for key, value in keys.items():
        section, _, name = key.partition(".")
        wanted = getattr(getattr(job, section), name)
        assert value == (config.toml_value(wanted) if key not in TABLES else f"{len(wanted)} tables")
    assert named.endswith(" do not go together" if len(keys) > 1 else f" does not go with sflam {command}")
    with pytest.raises(ConfigError) as raised:
        check(job, command)
    assert text in raised.value.problems


def test_all_broken_rows_are_reported_together() -> None:
    with pytest.raises(ConfigError) as raised:
        check(read(FEDLORA, FULL, "learn.cache=device", RESIDUAL))
    assert len(raised.value.problems) == 4


def test_a_long_value_is_cut() -> None:
    job = read("fleet.devices=100", f"fleet.cuts={[1] * 99 + [2]}", "learn.method=sl")
    with pytest.raises(ConfigError, match=r"fleet.cuts = \[1, 1, .*\.\.\. do not go") as raised:
        check(job)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("command", COMMANDS)
def test_the_default_job_breaks_none(command: str) -> None:
    check(config.load(), command)


def test_no_more_ranks_than_devices_of_a_round() -> None:
    job = read("fleet.devices=8", "fleet.selected=3")
    check_ranks(job, 3)
    with pytest.raises(ConfigError, match=r"^4 ranks are more .*, fleet.selected = 3; use at most 3 ranks$"):
        check_ranks(job, 4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_trained(method: str) -> None:
    check(read(f"learn.method={method}", *([FULL] if method == "fedavg" else [])))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_shipped_breaks_none(path: Path) -> None:
    job = config.load(path)
    check(job)
    check(job, PLAN)
