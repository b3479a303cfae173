"""Numbers that nothing in a job uses: where one is set, its rule says what would use it. Defaults are never refused."""

from __future__ import annotations

from dataclasses import replace

from sflam.config import Job
from sflam.run.conditions import NETWORK, Condition, Rule, is_none_of, is_one_of, is_set, value_of, where

_MIXED_BY_ALPHA = ("dirichlet", "quantity", "clusters")
_PLAIN_PARTITIONS = ("iid", "dirichlet", "shards", "quantity", "column", "file", "clusters")
"""Those of a user's own may use any key of ``[data]``."""


def _partitioned(*without: str) -> Condition:
    return is_one_of("data.partition", *(name for name in _PLAIN_PARTITIONS if name not in without))


def _without_noise(job: Job) -> str:
    return "" if job.privacy.promises or job.privacy.noise_loss else "privacy.noise"


def _no_fading(job: Job) -> str:
    if job.network.trace:
        return "network.trace"
    return "network.fading" if job.network.fading == "none" else ""


_NEEDS: dict[str, tuple[Condition, str, str]] = {
    "learn.prox": (
        is_none_of("learn.local", "fedprox"),
        "it is the mu of fedprox",
        'learn.local = "fedprox"',
    ),
    "learn.logit_tau": (
        is_none_of("learn.local", "fedlc"),
        "it is the tau of fedlc",
        'learn.local = "fedlc"',
    ),
    "learn.robust_share": (
        is_none_of("learn.robust", "trimmed", "krum"),
        "nothing is left out",
        'learn.robust = "trimmed" or "krum"',
    ),
    **{
        f"learn.{key}": (
            is_one_of("learn.server_optimizer", "none"),
            "the server takes the average as it is",
            "a learn.server_optimizer",
        )
        for key in ("server_lr", "server_momentum")
    },
    **{
        f"learn.{key}": (
            is_none_of("learn.server_optimizer", "adam", "yogi"),
            "it belongs to a second moment",
            'learn.server_optimizer = "adam" or "yogi"',
        )
        for key in ("server_beta2", "server_epsilon")
    },
    "learn.momentum": (is_none_of("learn.optimizer", "sgd"), "it is that of sgd", 'learn.optimizer = "sgd"'),
    **{
        f"learn.{key}": (
            is_one_of("learn.sync", "round"),
            "a round is made of what all its devices deliver",
            'learn.sync = "buffered"',
        )
        for key in ("buffer", "staleness")
    },
    **{
        f"association.{key}": (
            is_none_of("association.mode", "measured"),
            "the server moves no device of its own",
            'association.mode = "measured"',
        )
        for key in ("saves", "keep_rounds")
    },
    "repartition.least_cut": (
        is_one_of("repartition.mode", "off"),
        "cuts stay as they are",
        'repartition.mode = "ordered" or "overload"',
    ),
    **{
        f"repartition.{key}": (
            is_none_of("repartition.mode", "overload"),
            "the server moves no cut of its own",
            'repartition.mode = "overload"',
        )
        for key in ("memory_reserve", "slow_factor", "settle_rounds")
    },
    "learn.smoothing": (
        is_one_of("learn.loss", "cross-entropy", "focal"),
        "it belongs to label smoothing",
        'learn.loss = "label-smoothing"',
    ),
    "learn.focal_gamma": (
        is_one_of("learn.loss", "cross-entropy", "label-smoothing"),
        "it belongs to the focal loss",
        'learn.loss = "focal"',
    ),
    "learn.weights": (
        is_one_of("learn.method", "central", "local"),
        "no devices are averaged that could count for more or less",
        "another method",
    ),
    "data.alpha": (
        _partitioned(*_MIXED_BY_ALPHA),
        "it is the concentration of a Dirichlet draw",
        'data.partition = "dirichlet", "quantity" or "clusters"',
    ),
    "data.shards": (_partitioned("shards"), "it belongs to shards", 'data.partition = "shards"'),
    "data.column": (_partitioned("column"), "it says whose a sample is", 'data.partition = "column"'),
    "data.indices": (_partitioned("file"), "it lists samples of devices", 'data.partition = "file"'),
    "data.clusters": (_partitioned("clusters"), "it is a number of clusters", 'data.partition = "clusters"'),
    "privacy.clip_gradients": (
        is_one_of("model.labels", "server"),
        "devices have no loss whose gradients they send",
        'model.labels = "device"',
    ),
    "privacy.clip_loss": (
        is_one_of("model.labels", "server"),
        "the server knows the loss",
        'model.labels = "device"',
    ),
    **{
        f"privacy.{key}": (
            is_one_of("privacy.adapters", "none"),
            "adapters go up as they are",
            'privacy.adapters = "user"',
        )
        for key in ("clip_adapters", "noise_adapters")
    },
    **{
        f"privacy.{key}": (_without_noise, "there is no noise", "privacy.noise")
        for key in ("delta", "reproducible")
    },
    "privacy.drop_draw": (
        is_one_of("privacy.drop_tokens", 0.0),
        "all tokens go up",
        "privacy.drop_tokens above 0",
    ),
    "privacy.secure_threshold": (
        is_one_of("privacy.secure_aggregation", False),
        "adapters are averaged in the clear",
        "privacy.secure_aggregation = true",
    ),
    "plan.most_leakage": (
        is_one_of("plan.least_leakage", ""),
        "no audit has scores",
        "plan.least_leakage",
    ),
    "network.coherence": (
        _no_fading,
        "no fading is drawn that could change gradually",
        'network.fading = "rayleigh" without a trace',
    ),
    "data.flipped_devices": (is_one_of("data.flipped", 0.0), "no label is flipped", "data.flipped above 0"),
}
"""Key -> what must hold for nothing to use it, why that is so, and what would use it."""


def _rule(key: str, nothing: Condition, why: str, user: str) -> Rule:
    return Rule(
        f"unused-{key.partition('.')[2]}", (is_set(key), nothing), why, f"leave {key} out, or use {user}"
    )


UNUSED: tuple[Rule, ...] = (
    *(_rule(key, *need) for key, need in _NEEDS.items()),
    Rule(
        "unused-device-receive_power_w",
        (
            where("network.device", lambda devices: any(each.receive_power_w for each in devices)),
            is_one_of("network.downlink_mbps", 0.0),
        ),
        "the way down takes no time in which a radio could draw it",
        "leave receive_power_w out of [[network.device]], or use network.downlink_mbps above 0",
        NETWORK,
    ),
    Rule(
        "unused-receive_power_w",
        (is_set("network.receive_power_w"), is_one_of("network.downlink_mbps", 0.0)),
        "the way down takes no time in which a radio could draw it",
        "leave network.receive_power_w out, or use network.downlink_mbps above 0",
        NETWORK,
    ),
)
"""A rule per key."""


def without_unused(job: Job) -> Job:
    """Return the job with the default of every key that nothing in it uses."""
    default = Job()
    for key, (nothing, _, _) in _NEEDS.items():
        section, _, name = key.partition(".")
        if nothing(job) and value_of(job, key) != value_of(default, key):
            plain = getattr(getattr(default, section), name)
            job = replace(job, **{section: replace(getattr(job, section), **{name: plain})})
    return job
