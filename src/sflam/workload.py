"""The costs of fine-tuning a model: the first of the two types that the data path and the control path share.

Every number is per mini-batch of ``batch`` samples, and belongs to a cut: the number of blocks on
the device, 0 to ``blocks``. Cut 0 leaves only the embedding there. ``sflam.cost.measure`` fills this in from a
model's config.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from sflam.errors import AllocationError
from sflam.sizes import (
    FLOAT_BITS,
    HEADER_BYTES,
    MAX_BITS,
    MIN_BITS,
    adapter_payload_bits,
    grid_bytes,
    payload_bits,
    summed_numbers,
)

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
        tokens: tokens of a sample that cross the cut, s: all of them, but where devices drop some.
        hidden: width of an activation, d.
        device_forward: [Y + 1] FLOP of the device's half, forward, at each cut (1.6).
        device_backward: [Y + 1] FLOP of the device's half, backward; 0 at cut 0, and where it is frozen (1.6).
        server_forward: [Y + 1] FLOP of the server's half, forward (1.7).
        server_backward: [Y + 1] FLOP of the server's half, backward (1.7).
        adapter_values: [Y + 1] adapter weights of the device's half, P(l) (1.9), or all of its weights where all are
            trained.
        device_memory: [Y + 1] bytes at the peak of a training step on the device (1.10).
        whole_memory: bytes of a device that trains the whole model, head included.
        down: whether a gradient comes back at cut 0 too (a trainable embedding); never with a frozen one.
        lowest: the first block with something to train; devices cut there or before get no gradient either.
        frozen: whether none comes back at any cut, as devices train nothing below it.
        bit_choices: the bit widths a plan may choose from.
        scheme: the quantizer's name, which decides the side bits.
        exchanges: how often a mini-batch goes to the server and back: 1, or 2 with labels at home, where what comes
            out of the last block goes down and its gradient up.
        extra_up: bits of a body up beside codes and side information, where they are counted; so for the next two.
        extra_down: of an answer.
        extra_adapter: of the body of the adapters.
        adapter_bodies: bodies of that size one way: 2 where control variates travel beside the adapters.
        adapter_width: bits of an adapter weight as it travels: those of a float.
        adapter_change: bits of its change since the round began, where that goes up instead; else 32.
        adapter_grids: whether the grids of that change come down with the adapters, the same for all devices.
        sum_width: bytes of a masked number, where the change is summed under masks (``sflam.secure``); else 0.
        sum_up: bytes of keys, shares and heads that a device sends for such a sum.
        sum_down: of those that it receives.
        head_forward: FLOP of the device's half, forward, that are its head's; 0 but with labels at home.
        head_backward: the same, backward.
        texts: whether samples differ in length, so that lengths travel.
        numbered: whether the numbers of samples go up with them.
        labels_per_token: whether every token has a label, as in a language model.
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
    whole_memory: float
    down: bool = False
    lowest: int = 0
    frozen: bool = False
    bit_choices: tuple[int, ...] = tuple(range(MIN_BITS, MAX_BITS + 1))
    scheme: str = "uniform"
    exchanges: int = 1
    extra_up: int = 0
    extra_down: int = 0
    extra_adapter: int = 0
    adapter_bodies: int = 1
    adapter_width: int = FLOAT_BITS
    adapter_change: int = FLOAT_BITS
    adapter_grids: bool = False
    sum_width: int = 0
    sum_up: int = 0
    sum_down: int = 0
    head_forward: float = 0.0
    head_backward: float = 0.0
    texts: bool = False
    numbered: bool = False
    labels_per_token: bool = False

    def __post_init__(self) -> None:
        for name in PER_CUT:
            if (found := len(getattr(self, name))) != self.blocks + 1:
                raise AllocationError(
                    f"{name} of workload {self.name!r} has {found} values; it must have one per cut, {self.blocks + 1}"
                )

    def up_bits(self, bits: int) -> int:
        """Return the payload up in bit, codes and side bits, at any cut (1.8)."""
        return self.exchanges * self.activation_bits(bits) + self.extra_up

    def down_bits(self, cut: int, bits: int) -> int:
        """Return the payload down in bit; of one exchange, the returned gradient, 0 where none comes back (1.9)."""
        return (self.exchanges - 1 + self.returns(cut)) * self.activation_bits(bits) + self.extra_down

    def returns(self, cut: int) -> bool:
        """Return whether a gradient comes back to the device."""
        return (cut > self.lowest or self.down) and not self.frozen

    def adapter_bits(self, cut: int) -> int:
        """Return the bits of the device's adapters, as floats, and of what travels beside them, one way (1.9)."""
        return self.adapter_bodies * self.half_gradient_bits(cut) + self.grid_bits(cut)

    def trained_bits(self, cut: int) -> int:
        """Return the bits in which what was trained goes up, and of what travels beside it; as :meth:`adapter_bits`
        where the adapters do, fewer where their change does."""
        return self.adapter_bits(cut) - self.grid_bits(cut) - self.change_saves(self.adapter_values[cut])

    def grid_bits(self, cut: int) -> int:
        """Return the bits of the grids that come down with adapters, and of a secure sum; 0 where there are neither."""
        values = self.adapter_values[cut]
        return 8 * (grid_bytes(values) * self.adapter_grids + self.sum_down * (values > 0))

    def change_saves(self, values: int) -> int:
        """Return how many bits fewer the change of ``values`` adapter weights takes than they do; below 0 for more.

        The bodies of a secure sum have heads of their own, and not the one that is counted beside adapters.
        """
        if self.sum_width and values:
            summed = self.sum_up + self.sum_width * summed_numbers(values) - HEADER_BYTES
            return adapter_payload_bits(values, self.adapter_width) - 8 * summed
        if self.adapter_change >= FLOAT_BITS:
            return 0
        return adapter_payload_bits(values, self.adapter_width) - adapter_payload_bits(
            values, self.adapter_change
        )

    def half_gradient_bits(self, cut: int) -> int:
        """Return the bits of one gradient of all that the device's half trains, one way: as many as its adapters'."""
        values = self.adapter_values[cut]
        return adapter_payload_bits(values, self.adapter_width) + self.extra_adapter * (values > 0)

    def activation_bits(self, bits: int) -> int:
        """Return the bits of the activations of a mini-batch at the cut, codes and side bits (1.8)."""
        return payload_bits(self.batch * self.tokens, self.hidden, bits, self.scheme)
