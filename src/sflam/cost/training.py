"""How a model is trained, as far as its cost depends on it, and which layers are adapted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sflam.errors import ModelError, unknown
from sflam.model.architecture import Architecture, Linear
from sflam.model.kept_token import kept_token
from sflam.model.tuned import tuned_blocks
from sflam.sizes import sent_tokens

TEXT_TOKENS = 128
"""Tokens of a text where nothing else is given."""


@dataclass(frozen=True, kw_only=True)
class LeanDevice:
    """What the memory of a device without torch depends on beside the training.

    Attributes:
        bits: most of a value that crosses the cut, either way.
        scheme: of the quantizer.
        fedprox: whether a round's start is kept.
        keeps: whether the optimiser's state is kept from round to round.
        changes: whether the change of the adapters since a round's start goes up.
    """

    bits: int = 8
    scheme: str = "uniform"
    fedprox: bool = False
    keeps: bool = False
    changes: bool = False


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained.

    Attributes:
        batch: samples in a mini-batch, m_b.
        tokens: tokens of a sample; 0 takes the image's, or 128 for a text.
        rank: LoRA rank r.
        tuned: ``model.tuned``: how many of the first blocks are adapted; of the last ones where negative; 0 for all.
        targets: last names (``q_proj``) or dotted ends of the adapted layers; empty adapts every linear layer of
            the blocks, as training does.
        classes: labels of a classification head.
        task: ``causal-lm`` or ``classification``; empty takes what the config names.
        trained_head: whether a classifier that no checkpoint holds is trained in full.
        dtype: precision of weights and activations; adapters stay float32.
        optimizer_slots: values the optimiser keeps per adapter weight, n_s (Adam 2).
        fused_attention: the attention kernel keeps no s x s weights; without it they count in the memory.
        full: whether every weight is trained, and nothing is adapted.
        frozen_a: whether of the adapters B alone is trained and sent.
        frozen_half: whether devices train nothing below the cut, and so get no gradient there.
        lora_dropout: whether each adapter drops some of its input.
        checkpointing: whether a block's inside is computed again in the backward instead of being kept.
        memory_gb: ``learn.memory_gb``, what the activations of one pass of a server may take.
        labels_home: whether head and loss are on the device, and a step is two exchanges.
        samples_apart: whether devices hold the gradient of each sample.
        drop_tokens: share of a sample's tokens that do not go up.
        lean: of devices without torch; None where devices run torch.
    """

    batch: int = 16
    tokens: int = 0
    rank: int = 8
    tuned: int = 0
    targets: tuple[str, ...] = ()
    classes: int = 10
    task: str = ""
    trained_head: bool = True
    dtype: str = "float32"
    optimizer_slots: int = 2
    fused_attention: bool = True
    full: bool = False
    frozen_a: bool = False
    frozen_half: bool = False
    lora_dropout: bool = False
    checkpointing: bool = False
    memory_gb: float = 0.0
    labels_home: bool = False
    samples_apart: bool = False
    drop_tokens: float = 0.0
    lean: LeanDevice | None = None


@dataclass(frozen=True)
class Step:
    """A training step of one model: all that FLOP and memory are computed from.

    Attributes:
        shape: the model.
        training: how it is trained.
        tokens: tokens of a sample, s.
        adapted: the layers of an adapted block that are adapted, or all where every weight is trained.
    """

    shape: Architecture
    training: Training
    tokens: int
    adapted: tuple[Linear, ...]

    @property
    def tuned(self) -> range:
        """The blocks that carry adapters, or all where every weight is trained."""
        return tuned_blocks(self.training.tuned, self.shape.blocks)

    @property
    def sent(self) -> int:
        """Tokens of a sample that cross the cut."""
        return sent_tokens(self.tokens, self.training.drop_tokens)

    @property
    def served(self) -> Step:
        """The step as a server sees it: of the tokens that were sent, none of which is dropped again."""
        return replace(self, tokens=self.sent, training=replace(self.training, drop_tokens=0.0))

    @property
    def bare(self) -> Step:
        """The step of a block without adapters."""
        return replace(self, adapted=())


def step_of(shape: Architecture, training: Training, name: str) -> Step:
    """Return the step of a model; raises ModelError for targets that name no layer, too many tokens, and tokens that
    are dropped of a model that needs all."""
    if training.drop_tokens:
        kept_token(shape.family, per_token=any(layer.every_token for layer in shape.head))
    if training.full:
        training = replace(training, rank=0, targets=(), tuned=0)
    tuned_blocks(training.tuned, shape.blocks, name)
    return Step(shape, training, _tokens(shape, training, name), _adapted(shape, training.targets, name))


def with_tuned(step: Step, tuned: int) -> Step:
    """Return the step of a device that tunes other blocks, ``model.tuned``."""
    return replace(step, training=replace(step.training, tuned=0 if step.training.full else tuned))


def _adapted(shape: Architecture, targets: tuple[str, ...], name: str) -> tuple[Linear, ...]:
    known = {end for linear in shape.linears for end in (linear.name, linear.name.rpartition(".")[2])}
    for target in targets:
        if not any(_ends(linear, target) for linear in shape.linears):
            raise ModelError(f"model {name!r}: {unknown('model.targets entry', target, known)}")
    return tuple(
        linear for linear in shape.linears if not targets or any(_ends(linear, end) for end in targets)
    )


def _ends(linear: Linear, target: str) -> bool:
    return linear.name == target or linear.name.endswith(f".{target}")


def _tokens(shape: Architecture, training: Training, name: str) -> int:
    limit = shape.most_tokens or training.tokens or TEXT_TOKENS
    tokens = training.tokens or shape.tokens or min(TEXT_TOKENS, limit)
    if tokens > limit and not shape.tokens:
        raise ModelError(f"model {name!r} has {limit} positions, asked for {tokens} tokens; ask for fewer")
    if tokens <= shape.extra_tokens:
        raise ModelError(
            f"model {name!r}: {tokens} tokens leave no patch beside {shape.extra_tokens} extra ones"
        )
    return tokens
