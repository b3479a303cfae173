"""What fine-tuning a model costs, in plain numbers: the first of the two values that the data and the control path share.

Every number is per mini-batch of ``batch`` samples of ``tokens`` tokens, and belongs to a cut: the number of blocks on
the device, 0 to ``blocks``. Cut 0 leaves only the embedding there. ``sflam.model.measure`` fills this in from a
model's config.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from sflam.payload import MAX_BITS, MIN_BITS, payload_bits


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

    def __post_init__(self) -> None:
        for per_cut in (
            self.device_forward,
            self.device_backward,
            self.server_forward,
            self.server_backward,
            self.adapter_values,
            self.device_memory,
        ):
            assert len(per_cut) == self.blocks + 1, (len(per_cut), self.blocks)

    @property
    def elements(self) -> int:
        """Values that cross the cut in one direction, n = m_b s d."""
        return self.batch * self.tokens * self.hidden

    def up_bits(self, bits: int) -> int:
        """Return the payload up in bit, codes and side bits, at any cut (1.8)."""
        return payload_bits(self.batch * self.tokens, self.hidden, bits, self.scheme)

    def down_bits(self, cut: int, bits: int) -> int:
        """Return the payload of the returned gradient in bit; 0 where none comes back (1.9)."""
        if cut == 0 and not self.down:
            return 0
        return payload_bits(self.batch * self.tokens, self.hidden, bits, self.scheme)

    def adapter_bits(self, cut: int) -> int:
        """Return the bits of the device's adapters, float32, one way (1.9)."""
        return 32 * self.adapter_values[cut]
