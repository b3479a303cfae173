"""Bits and bytes that cross the cut, from plain numbers: as the cost model charges them and the socket carries them.

The payload is the information: ``bits`` per value plus ``SIDE_BITS`` per token for its offset and step.
The body adds what the wire needs to name its tensors: ``HEADER_BYTES``, lengths and labels.
``sflam.codec.bodies`` writes bodies of exactly these sizes, so a receiver knows a body's size beforehand.

The scheme ``identity`` sends floats as they are: 32 bits a value, or 64 where ``bits`` is 64; no side. Schemes in
``BOUNDS`` have a size that depends on the values: for them every number here is the tight upper bound, by which plans
are made and bodies are admitted. All other schemes cost the same.
"""

from __future__ import annotations

from collections.abc import Callable

MIN_BITS, MAX_BITS = 1, 16
SIDE_BITS = 32  # per token: offset and step, bfloat16 each
HEADER_BYTES = 592  # 8-byte length and space-padded JSON; holds the longest header within the limits below
COUNT_LIMIT = 10**9  # exclusive limit of every number a header states: tokens, rows, round, step, ...
BODY_LIMIT = 10**10  # exclusive limit of the bytes of one body
IDENTITY = "identity"
TOPK = "topk"
TOPK_VALUE_BITS = 8  # of the level of a value that is kept
FLOAT_BITS = 32
ADAPTER_BITS = 8  # of the change of an adapter value, where a job says nothing
SUM_MARKS = 8  # numbers of a group that say how far it moved, where devices send what is summed under masks
ADAPTER_GROUP = 128  # adapter values that share an offset and a step where their change travels in few bits


def index_bits(dim: int) -> int:
    """Return the bits of an index below ``dim``."""
    return max(1, (dim - 1).bit_length())


def topk_kept(dim: int, bits: int) -> int:
    """Return k, how many of a token's values ``topk`` keeps at most: what fits into ``bits`` per value, at least 1."""
    return min(dim, max(1, dim * bits // (index_bits(dim) + TOPK_VALUE_BITS)))


def topk_bound(tokens: int, dim: int, bits: int) -> int:
    """Return the most bytes of codes and side information of ``topk``."""
    kept = tokens * topk_kept(dim, bits)
    return -(-kept * index_bits(dim) // 8) + kept * TOPK_VALUE_BITS // 8 + tokens * SIDE_BITS // 8


BOUNDS: dict[str, Callable[[int, int, int], int]] = {TOPK: topk_bound}
"""Schemes of variable size -> the most bytes of codes and side information, from tokens, dim and bits."""


def is_variable(scheme: str) -> bool:
    """Return whether a message's size depends on its values."""
    return scheme in BOUNDS


def value_bits(bits: int, scheme: str = "uniform") -> int:
    """Return the bits of one value: ``bits``, or the float's width (32 or 64) for ``identity``."""
    if scheme != IDENTITY:
        return bits
    return 64 if bits == 64 else 32


def side_bits(scheme: str = "uniform") -> int:
    """Return the bits of side information per token."""
    return 0 if scheme == IDENTITY else SIDE_BITS


def payload_bits(tokens: int, dim: int, bits: int, scheme: str = "uniform") -> int:
    """Return the bits of ``tokens`` x ``dim`` values and their side information, without header."""
    if scheme in BOUNDS:
        return 8 * BOUNDS[scheme](tokens, dim, bits)
    return tokens * (dim * value_bits(bits, scheme) + side_bits(scheme))


def codes_bytes(tokens: int, dim: int, bits: int, scheme: str = "uniform") -> int:
    """Return the bytes that hold the packed codes (only the last byte may have spare bits)."""
    if scheme in BOUNDS:
        return BOUNDS[scheme](tokens, dim, bits) - tokens * SIDE_BITS // 8
    return -(-tokens * dim * value_bits(bits, scheme) // 8)


def payload_bytes(tokens: int, dim: int, bits: int, scheme: str = "uniform") -> int:
    """Return the bytes of packed codes and side information, as sent, without header."""
    return codes_bytes(tokens, dim, bits, scheme) + tokens * side_bits(scheme) // 8


def sent_tokens(tokens: int, share: float) -> int:
    """Return how many of a sample's ``tokens`` go up where at most a ``share`` of those that the head does not read
    stays on the device: the one that it reads, and at least one other."""
    others = tokens - 1
    return 1 + max(1, others - int(share * others)) if others > 0 else tokens


def step_body_bytes(
    tokens: int,
    dim: int,
    bits: int,
    *,
    rows: int,
    lengths: bool = False,
    labels: int = 0,
    samples: bool = False,
    scheme: str = "uniform",
) -> int:
    """Return the exact bytes of a step's body: activations up, one int32 per row where lengths travel, and where
    sample numbers do, one int32 per label."""
    return HEADER_BYTES + payload_bytes(tokens, dim, bits, scheme) + 4 * (rows * (lengths + samples) + labels)


def token_body_bytes(tokens: int, dim: int, bits: int, scheme: str = "uniform") -> int:
    """Return the exact bytes of a body of tokens alone: with labels on the device, what comes and goes between the
    server's last block and the head."""
    return HEADER_BYTES + payload_bytes(tokens, dim, bits, scheme)


def adapter_groups(values: int) -> int:
    """Return the groups of ``ADAPTER_GROUP`` that ``values`` adapter weights fill; the last may not be full."""
    return -(-values // ADAPTER_GROUP)


def summed_numbers(values: int) -> int:
    """Return the numbers that a device adds to a sum of ``values`` adapter weights: codes, marks, and its weight."""
    return values + SUM_MARKS * adapter_groups(values) + 1


def grid_bytes(values: int) -> int:
    """Return the bytes of the grids of ``values`` adapter weights, which go down where all devices share them."""
    return adapter_groups(values) * SIDE_BITS // 8


def adapter_payload_bits(values: int, bits: int = FLOAT_BITS) -> int:
    """Return the bits of ``values`` adapter weights, without header: as floats of 32 or 64 bits, or their change in
    1..16 bits a value, group by group."""
    if bits > MAX_BITS:
        return values * bits
    return payload_bits(adapter_groups(values), ADAPTER_GROUP, bits)


def adapter_body_bytes(values: int, bits: int = FLOAT_BITS) -> int:
    """Return the exact bytes of a body that carries ``values`` adapter weights."""
    return HEADER_BYTES + adapter_payload_bits(values, bits) // 8
