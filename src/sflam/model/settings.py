"""``[model]``: which model, where it is cut, what is trained. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges

LABELS = ("server", "device")
TRAINABLE = ("lora", "lora+head", "full")
TRUNK_BITS = (0, 4, 8)
IN_MEMORY, IN_FILES, OVER_RANKS = "memory", "file", "ranks"
TRUNK_WEIGHTS = (IN_MEMORY, IN_FILES, OVER_RANKS)
DTYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model is fine-tuned, after which block it is cut, and what is trained.

    Attributes:
        name: ``nano-vit`` (bundled), a local folder in Hugging Face format, or a hub name.
        cut: blocks kept on the device: 0 keeps only the embedding, L keeps every block.
        labels: where labels, head and loss live: ``server``, or ``device`` (the U-shape; two exchanges a step).
        trainable: ``lora`` trains adapters, and the head when it is newly initialised; ``lora+head`` always both;
            ``full`` every weight of both halves, without adapters (each device holds its own: for small models).
        adapter: folder of an adapter to continue from, as a finished run writes it; empty starts anew.
        rank: LoRA rank r.
        alpha: LoRA scaling numerator: updates are multiplied by alpha / rank.
        dropout: LoRA dropout probability.
        tuned: how many of the first blocks carry adapters; a negative number is of the last blocks, 0 of all. The other
            blocks stay as they are, wherever the model is cut: where none before the cut is tuned, no gradient comes
            back to the device.
        targets: last names of the linear layers to adapt; empty adapts every linear layer of the blocks.
        trunk_bits: keep the linear layers of the server's frozen blocks in 8 or 4 bits, through the bitsandbytes
            library; 0 does not.
        trunk_weights: where the frozen weights of the blocks after the last cut are. ``memory``; ``file``: in the
            model's own files, of which a block is read when it runs; ``ranks``: shared out over the ranks that train
            together, which gather a block when it runs (on one rank as ``file``). No number of a run depends on it.
        dtype: arithmetic of both halves; ``bfloat16`` keeps adapters in float32 and autocasts the rest.
    """

    name: str = "nano-vit"
    cut: int = 1
    labels: str = "server"
    trainable: str = "lora"
    adapter: str = ""
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    tuned: int = 0
    targets: tuple[str, ...] = ()
    trunk_bits: int = 0
    trunk_weights: str = IN_MEMORY
    dtype: str = "float32"

    def __post_init__(self) -> None:
        ranges = Ranges(self, "model")
        ranges.require(bool(self.name), "name", "give nano-vit, a local folder, or a hub name")
        ranges.at_least(0, "cut", hint=" (0 keeps only the embedding)")
        ranges.one_of(LABELS, "labels")
        ranges.one_of(TRAINABLE, "trainable")
        ranges.one_of(TRUNK_BITS, "trunk_bits")
        ranges.one_of(TRUNK_WEIGHTS, "trunk_weights")
        ranges.at_least(1, "rank")
        ranges.positive("alpha")
        ranges.require(0 <= self.dropout < 1, "dropout", "it must be in [0, 1)")
        ranges.one_of(DTYPES, "dtype")
        ranges.check()
