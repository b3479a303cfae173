"""What fine-tuning a model costs, in plain numbers: the first of the two values that data and control path share.

Every number is per mini-batch of ``batch`` samples of ``tokens`` tokens, and belongs to a cut: the number of blocks on
the device, 0 to ``blocks``. Cut 0 leaves only the embedding there. ``sflam.model.measure`` fills this in from a
model's config.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from sflam.errors import AllocationError
from sflam.sizes import MAX_BITS, MIN_BITS, payload_bits

PER_CUT = (
    "device_forward",
    "device_backward",
    "server_forward",
    "server_backward",
    "adapter_values",
    "device_memory",
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The work, traffic and memory of one model, at every cut.

    Attributes:
        name: what to call the model in reports.
        blocks: transformer blocks of the model, Y.
        batch: samples in a mini-batch, m_b.
        tokens: tokens of a sample, s.
        hidden: width of an activation, d.
        device_forward: [Y + 1] FLOP of the device's half, forward, at each cut (1.6).
        device_backward: [Y + 1] FLOP of the device's half, backward; 0 at cut 0 (1.6).
        server_forward: [Y + 1] FLOP of the server's half, forward (1.7).
        server_backward: [Y + 1] FLOP of the server's half, backward (1.7).
        adapter_values: [Y + 1] adapter weights of the device's half, P(l) (1.9).
        device_memory: [Y + 1] bytes at the peak of a training step on the device (1.10).
        down: whether a gradient comes back at cut 0 too (a trainable embedding); never with a frozen one.
        bit_choices: the bit widths a plan may choose from.
        scheme: the quantizer's name, which decides the side bits.
        exchanges: how often a mini-batch goes to the server and back: 1, or 2 with labels at home, where what comes
            out of the last block goes down and its gradient up.
        extra_up: bits of a body up beside codes and side information, where they are counted; so for the next two.
        extra_down: of an answer.
        extra_adapter: of the body of the adapters.
    """

    name: str
    blocks: int
    batch: int
    tokens: int
    hidden: int
    device_forward: tuple[float, ...]
    device_backward: tuple[float, ...]
    server_forward: tuple[float, ...]
    server_backward: tuple[float, ...]
    adapter_values: tuple[int, ...]
    device_memory: tuple[float, ...]
    down: bool = False
    bit_choices: tuple[int, ...] = tuple(range(MIN_BITS, MAX_BITS + 1))
    scheme: str = "uniform"
    exchanges: int = 1
    extra_up: int = 0
    extra_down: int = 0
    extra_adapter: int = 0

    def __post_init__(self) -> None:
        for name in PER_CUT:
            if (found := len(getattr(self, name))) != self.blocks + 1:
                raise AllocationError(
                    f"{name} of workload {self.name!r} has {found} values; it must have one per cut, {self.blocks + 1}"
                )

    def up_bits(self, bits: int) -> int:
        """Return the payload up in bit, codes and side bits, at any cut (1.8)."""
        return self.exchanges * self._tokens_bits(bits) + self.extra_up

    def down_bits(self, cut: int, bits: int) -> int:
        """Return the payload down in bit; of one exchange, the returned gradient, 0 where none comes back (1.9)."""
        gradient = cut > 0 or self.down
        return (self.exchanges - 1 + gradient) * self._tokens_bits(bits) + self.extra_down

    def adapter_bits(self, cut: int) -> int:
        """Return the bits of the device's adapters, float32, one way (1.9)."""
        return 32 * self.adapter_values[cut] + self.extra_adapter * (self.adapter_values[cut] > 0)

    def _tokens_bits(self, bits: int) -> int:
        return payload_bits(self.batch * self.tokens, self.hidden, bits, self.scheme)


SITES = ("q", "k", "v", "o", "up", "down")
"""The linear maps of a block that LoRA can adapt; with a gated MLP, ``up`` stands for the gate too."""


def transformer_workload(
    name: str,
    *,
    hidden: int,
    tokens: int,
    blocks: int,
    mlp: int,
    heads: int,
    batch: int,
    outputs: int = 0,
    embed_flops: float = 0.0,
    embed_weights: int = 0,
    rank: int = 8,
    sites: tuple[str, ...] = ("q", "v"),
    query_width: int | None = None,
    value_width: int | None = None,
    gated: bool = False,
    head_tokens: int = 1,
    head_trained: bool = True,
    down: bool = False,
    weight_bytes: float = 4,
    activation_bytes: float = 4,
    optimizer_slots: int = 2,
    fused_attention: bool = False,
    scheme: str = "uniform",
    bit_choices: tuple[int, ...] = tuple(range(MIN_BITS, MAX_BITS + 1)),
) -> Workload:
    """Return the workload of a transformer with equal blocks and dense attention, by (1.1)-(1.10).

    A multiply-add is two FLOP. The base weights are frozen: a linear map costs one forward in the backward, attention
    two, LoRA two. Below the lowest trainable parameter nothing flows back (1.5).

    Args:
        name: what to call the model.
        hidden: d.
        tokens: tokens of a sample, s.
        blocks: Y.
        mlp: width of the MLP, d_ff.
        heads: attention heads, h.
        batch: samples in a mini-batch, m_b.
        outputs: outputs of the head; 0 leaves the head out.
        embed_flops: FLOP of the embedding, per sample, forward.
        embed_weights: weights of the embedding.
        rank: LoRA rank r.
        sites: the adapted maps of every block, out of ``SITES``.
        query_width: heads times their width, where it is not ``hidden``.
        value_width: the same for keys and values, where queries share them.
        gated: whether the MLP has a third matrix, a gate.
        head_tokens: tokens that enter the head: 1 for a classifier, s for a language model.
        head_trained: whether the head's weights are trained.
        down: whether the embedding is trained, so that the backward goes all the way.
        weight_bytes: bytes of a frozen weight.
        activation_bytes: bytes of an activation.
        optimizer_slots: numbers the optimiser keeps per trained weight; Adam 2.
        fused_attention: whether attention weights are never stored.
        scheme: the quantizer's name.
        bit_choices: the bit widths a plan may choose from.
    """
    assert set(sites) <= set(SITES), sites
    d, s, q_width = hidden, tokens, query_width or hidden
    v_width = value_width or q_width
    ins = dict.fromkeys(("q", "k", "v"), d) | {"o": q_width, "up": d, "down": mlp}
    outs = {"q": q_width, "k": v_width, "v": v_width, "o": d, "up": mlp * (1 + gated), "down": d}
    adapters = sum(rank * (ins[site] + outs[site]) for site in sites)  # weights of one block's adapters
    weights = sum(ins[site] * outs[site] for site in SITES)
    lora = 2.0 * s * adapters  # (1.2)
    forward = 2.0 * s * weights + 4.0 * s * s * q_width + lora  # (1.1)
    backward = 2.0 * s * weights + 8.0 * s * s * q_width + 2 * lora  # (1.3)
    saved = 0.0 if down else s * _not_flowing(set(sites), ins, outs, 2.0 * s * q_width, rank)  # (1.5)
    head = 2.0 * d * outputs * head_tokens
    cuts = range(blocks + 1)
    stored = (
        d * (3 + ("o" in sites) + ("up" in sites))  # inputs of both norms, of the adapters
        + q_width
        + 2 * v_width
        + mlp * (1 + gated + ("down" in sites))
        + (0 if fused_attention else heads * s)
        + len(sites) * rank
    )
    block_weights = weights + 9 * d + mlp * (1 + gated)
    return Workload(
        name=name,
        blocks=blocks,
        batch=batch,
        tokens=s,
        hidden=d,
        device_forward=tuple(batch * (embed_flops + cut * forward) for cut in cuts),  # (1.6)
        device_backward=tuple(batch * (cut * backward - saved) if cut else 0.0 for cut in cuts),
        server_forward=tuple(batch * ((blocks - cut) * forward + head) for cut in cuts),  # (1.7)
        server_backward=tuple(
            batch * ((blocks - cut) * backward - (0 if cut else saved) + head * (1 + head_trained))
            for cut in cuts
        ),
        adapter_values=tuple(cut * adapters for cut in cuts),
        device_memory=tuple(  # (1.10)
            weight_bytes * (embed_weights + cut * block_weights)
            + 4 * (2 + optimizer_slots) * cut * adapters
            + activation_bytes * batch * s * (cut * stored + 2 * d)
            for cut in cuts
        ),
        down=down,
        bit_choices=bit_choices,
        scheme=scheme,
    )


def _not_flowing(
    sites: set[str], ins: dict[str, int], outs: dict[str, int], attention: float, rank: int
) -> float:
    """Return the FLOP per token that the lowest block's backward saves (1.5).

    ``attention`` is one product with the attention weights. From the block's end to its input, a gradient is computed
    only where an adapter below still needs it.
    """
    below = {"q", "k", "v"}
    saved = 2.0 * sum(ins[site] * outs[site] for site in below)  # of W_q, W_k, W_v
    saved += 2.0 * rank * sum(ins[site] for site in below & sites)  # of their A
    saved += attention * len(below - sites)
    if not sites & {"q", "k"}:
        saved += attention  # of the attention weights
    if not sites & below:
        saved += 2.0 * ins["o"] * outs["o"] + 2.0 * rank * ins["o"] * ("o" in sites)
    if not sites & (below | {"o"}):
        saved += 2.0 * ins["up"] * outs["up"] + 2.0 * rank * ins["up"] * ("up" in sites)
    if not sites & (below | {"o", "up"}):
        saved += 2.0 * ins["down"] * outs["down"] + 2.0 * rank * ins["down"] * ("down" in sites)
    return saved
