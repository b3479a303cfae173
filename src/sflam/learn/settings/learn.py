"""``[learn]``: how a round is run. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.learn.settings.practice import (
    AGGREGATIONS,
    BUNDLES,
    DEVICE_HALVES,
    KEYS,
    LOCALS,
    SERVER_OPTIMIZERS,
    SERVER_UPDATES,
    STATES,
    TRUNKS,
    WEIGHTS,
    Practice,
    practice_of,
)
from sflam.ranges import Ranges
from sflam.registry import OWN

OPTIMIZERS = ("adamw", "adam", "sgd")
CACHES = ("off", "device", "server")
LOSSES = ("cross-entropy", "label-smoothing", "focal")
METRICS = ("accuracy", "balanced-accuracy", "macro-f1")
PERSONAL = ("none", "head", "device-half")
ROBUST = ("none", "median", "trimmed", "geometric", "krum")
SYNCS = ("round", "buffered")
KEEPS = ("last", "best")
PASSES = ("rule", "measured")
SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How a round is run.

    Attributes:
        method: ``sflam`` (SFL-V1 with a quantized cut), ``sflam-mixed`` (one server copy for all devices, which takes
            their rows in mixed groups), or what they are compared with: ``sfl-v1``, ``sfl-v2``, ``sl`` (devices one
            after another), ``fedlora`` (whole models on devices), ``fedavg`` (the same, every weight trained),
            ``local`` (every device for itself), ``central``; and what is known against unlike devices, on whole
            adapted models: ``fedprox``, ``scaffold``, ``fedlc``, ``fedavgm``, ``fedadam``, ``fedyogi``, ``flexlora``,
            ``ffa-lora``. The name sets the next seven keys, ``state`` and ``data.sampling`` where
            they are empty, and ``lr`` where it is 0.
        trunk: copies of the server's half: ``per-device`` (averaged every round), or ``shared`` by all devices.
        server_update: the optimiser steps of a shared trunk in a local step: ``sequential`` takes one per device
            (classical), ``batched`` one on all rows, ``mixed`` as many as a device has rows, each on rows of every
            device.
        device_half: what devices do with their half: ``trained`` apart and averaged every round, ``averaged`` in every
            step (its gradients are), or ``frozen`` at any cut: no gradient comes back.
        weights: what a device counts in the loss of a shared trunk: all ``equal``, or by ``samples``.
        aggregation: ``fedavg`` averages A and B apart; ``freeze-a`` trains B only (exact); ``residual`` adds
            mean(BA) - mean(B) mean(A) to the frozen weights (exact); ``svd`` gives back the closest factors of
            mean(BA) (FlexLoRA).
        robust: an average that few devices cannot move far, whatever they send: ``median`` or ``trimmed`` mean of every
            number by itself, ``geometric`` median of all numbers together, or ``krum``, the mean of those that lie
            nearest to others; ``none`` averages all. Adapters of the trunk are covered where each device has its own.
        robust_share: share of a round's devices that may send anything, which ``trimmed`` and ``krum`` leave out.
        local: what a device adds to its learning: ``plain`` nothing; ``fedprox`` a pull towards where the round began;
            ``scaffold`` control variates, which travel beside the adapters; ``fedlc`` calibrates its logits by its
            counts of labels. Where devices share the trunk, it acts on the device half alone.
        server_optimizer: what moves the global adapters by the change that was averaged: ``none`` takes the average;
            ``momentum`` (FedAvgM), ``adam`` (FedAdam), ``yogi`` (FedYogi).
        personal: what each device keeps for itself, never sent and never averaged: ``none``, its ``head`` (all that is
            trained after the blocks, as in FedPer), or its ``device-half`` (all that it trains before the cut; its head
            too where labels stay on devices). Rounds then score the mean of the devices' own models.
        sync: when the global adapters move: by ``round``, once all devices of a round have delivered; or ``buffered``,
            whenever ``buffer`` updates have come from devices that work at their own pace (FedBuff), simulated or
            served; a trunk that all share learns from the frames that are there, simulated.
        buffer: M, the updates of which one buffered round is made; 0 takes as many as there are devices.
        staleness: most versions that an update may be behind when it comes; one that is further behind is thrown away.
            0 takes all. Each counts 1 / sqrt(1 + versions).
        rounds: communication rounds; with ``sync = "buffered"`` so many versions.
        local_epochs: passes over a device's own data per round; ignored when ``local_steps`` is set.
        local_steps: mini-batches per device per round; 0 uses ``local_epochs``.
        loss: what is minimised: ``cross-entropy`` (the model's own), ``label-smoothing`` or ``focal``. The test loss is
            the cross-entropy, whatever is trained.
        smoothing: weight that ``label-smoothing`` gives to all classes alike.
        focal_gamma: exponent of ``focal``; 0 is the cross-entropy.
        metric: what is reported of every evaluated round beside the accuracy: ``macro-f1``, ``balanced-accuracy``, or
            ``accuracy`` alone. ``keep`` and ``stop_after`` choose by it.
        batch: mini-batch size on a device.
        server_batch: rows of an optimiser step of a shared trunk that takes ``mixed`` groups; 0 takes one row of every
            device, or with ``data.sampling = "global"`` as many as ``batch``.
        lr: learning rate: the largest of the schedule; 0 takes the method's own, 3e-3, or 1e-3 of ``sflam-mixed``.
        schedule: how it goes on after the warm-up: ``constant``, or to 0 at the end of the run by a ``cosine`` or a
            ``linear`` one. It spans ``rounds``, which a resumed run then cannot change.
        warmup: share of the run over which the rate rises linearly from 0 to ``lr``; 0 begins with ``lr``.
        decay: factor on the rate from each round to the next; 1 leaves it.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        weight_decay: weight decay of the optimiser.
        momentum: momentum of ``sgd``.
        prox: mu of ``fedprox``.
        logit_tau: tau of ``fedlc``.
        server_lr: learning rate of the server's optimiser; 0 uses 1 for ``momentum`` and 0.01 for the others.
        server_momentum: momentum of the server's optimiser, beta or beta_1.
        server_beta2: decay of the second moment of ``adam`` and ``yogi``.
        server_epsilon: added to the root of that moment, tau; the smaller, the more adaptive.
        clip: per-device limit on the gradient norm of one side; 0 does not clip.
        state: optimiser state across rounds: ``reset`` (as in FedAvg practice) or ``keep``; empty takes the method's
            own, ``keep`` of ``sflam-mixed`` and ``reset`` of every other.
        keep: which round's model is written: the ``last``, or the ``best`` on the validation part by ``metric`` (a
            language model's by its loss, unless a metric is set); see ``data.validation``.
        stop_after: end the run after so many evaluations in a row without a better validation score; 0 never.
        checkpointing: keep only each block's input for the backward and compute its inside again: the same gradients,
            far less memory for activations, about a third more computing.
        memory_gb: GB that the activations of one pass of the server's half may take. Where the rows of a step need
            more, they go through in chunks whose gradients add up to the same; 0 takes 0.6, beyond which
            rows gain nothing by going together. At least one row goes through at a time.
        passes: how many rows go through at a time: by ``rule`` as many as ``memory_gb`` holds, or as many as are found
            fastest when the run begins, ``measured``; the run's own config then says what was found.
        device: ``cpu``, ``cuda``, or ``auto``.
        cache: activations of a frozen device half (``device_half = "frozen"``, or cut 0) that are kept instead of made
            again: ``off``, ``device`` (saves computing), or ``server`` (each sample's cross once).
        evaluate_every: evaluate after every so many rounds, and after the last; 0 only after the last. On the
            validation part where there is one, and on the test part once, at the end; else on the test part.
        evaluate_samples: score rounds on so many samples of that part, the same in every round and of every class its
            share; 0 on all of them. The model that is kept is scored on all at the end, whatever this is.
        canonical: one thread, fixed order: bit-equal results on one type of machine, slower.
    """

    method: str = "sflam"
    trunk: str = ""
    server_update: str = ""
    device_half: str = ""
    weights: str = ""
    aggregation: str = ""
    robust: str = "none"
    robust_share: float = 0.2
    local: str = ""
    server_optimizer: str = ""
    personal: str = "none"
    sync: str = "round"
    buffer: int = 0
    staleness: int = 0
    rounds: int = 10
    local_epochs: int = 1
    local_steps: int = 0
    loss: str = "cross-entropy"
    smoothing: float = 0.1
    focal_gamma: float = 2.0
    metric: str = "accuracy"
    batch: int = 16
    server_batch: int = 0
    lr: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    decay: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.0
    prox: float = 0.01
    logit_tau: float = 1.0
    server_lr: float = 0.0
    server_momentum: float = 0.9
    server_beta2: float = 0.99
    server_epsilon: float = 1e-3
    clip: float = 1.0
    state: str = ""
    keep: str = "last"
    stop_after: int = 0
    checkpointing: bool = False
    memory_gb: float = 0.0
    passes: str = "rule"
    device: str = "auto"
    cache: str = "off"
    evaluate_every: int = 1
    evaluate_samples: int = 0
    canonical: bool = False

    @property
    def practice(self) -> Practice:
        """How the method learns, every key with its value: the one place where empty keys are resolved."""
        return practice_of(self.method, {name: getattr(self, name) for name in KEYS})

    @property
    def optimizer_slots(self) -> int:
        """Numbers that the optimiser and ``local`` keep per trained weight, n_s."""
        kept = {"fedprox": 1, "scaffold": 3}.get(self.practice.local, 0)
        return kept + (int(self.momentum > 0) if self.optimizer == "sgd" else 2)

    @property
    def chooses(self) -> bool:
        """Whether something is chosen by a score, which must then be that of a validation part."""
        return self.keep == "best" or self.stop_after > 0

    @property
    def spans_run(self) -> bool:
        """Whether the rate of a step depends on how many rounds there are to be."""
        return self.schedule != "constant" or self.warmup > 0

    def counts_held(self, sampling: str) -> bool:
        """Whether devices, with ``data.sampling``, make as many local steps each and count by the samples they hold."""
        return self.practice.weights == "samples" and self.local_steps > 0 and sampling != "global"

    @property
    def scheduled(self) -> bool:
        """Whether the rate ever changes."""
        return self.spans_run or self.decay != 1

    def __post_init__(self) -> None:
        ranges = Ranges(self, "learn")
        ranges.one_of(BUNDLES, "method")
        ranges.one_of(("", *TRUNKS), "trunk")
        ranges.one_of(("", *SERVER_UPDATES), "server_update")
        ranges.one_of(("", *DEVICE_HALVES), "device_half")
        ranges.one_of(("", *WEIGHTS), "weights")
        ranges.one_of(("", *AGGREGATIONS), "aggregation")
        ranges.one_of(ROBUST, "robust")
        ranges.require(
            0 <= self.robust_share < 0.5, "robust_share", "it must be in [0, 0.5): fewer than half"
        )
        ranges.one_of(("", *LOCALS), "local")
        ranges.one_of(("", *SERVER_OPTIMIZERS), "server_optimizer")
        ranges.one_of((*LOSSES, *sorted(OWN["loss"])), "loss")
        ranges.one_of((*METRICS, *sorted(OWN["metric"])), "metric")
        ranges.require(0 <= self.smoothing < 1, "smoothing", "it must be in [0, 1), for example 0.1")
        ranges.at_least(0, "focal_gamma")
        ranges.one_of(OPTIMIZERS, "optimizer")
        ranges.one_of(PERSONAL, "personal")
        ranges.one_of(SYNCS, "sync")
        ranges.at_least(0, "buffer", "staleness")
        ranges.one_of(("", *STATES), "state")
        ranges.one_of(CACHES, "cache")
        ranges.one_of(KEEPS, "keep")
        ranges.one_of(SCHEDULES, "schedule")
        ranges.one_of(PASSES, "passes")
        ranges.one_of(("auto", "cpu", "cuda"), "device")
        ranges.at_least(1, "rounds", "local_epochs", "batch")
        ranges.at_least(
            0,
            "server_batch",
            "local_steps",
            "weight_decay",
            "clip",
            "evaluate_every",
            "evaluate_samples",
            "stop_after",
        )
        ranges.at_least(0, "memory_gb", "lr", "prox", "logit_tau", "server_lr")
        ranges.positive("server_epsilon")
        for key in ("momentum", "server_momentum", "server_beta2"):
            ranges.require(0 <= getattr(self, key) < 1, key, "it must be in [0, 1)")
        ranges.require(
            0 <= self.warmup < 1, "warmup", "it is a share of the run in [0, 1), for example 0.05 or 0"
        )
        ranges.require(
            0 < self.decay <= 1, "decay", "it must be in (0, 1], for example 0.99; 1 leaves the rate"
        )
        ranges.check()
