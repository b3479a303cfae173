"""``[model]``: which model, where it is cut, what is trained. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.errors import ConfigError

LABELS = ("server", "device")
TRAINABLE = ("lora", "lora+head", "full")
TRUNK_BITS = (0, 4, 8)
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
        targets: last names of the linear layers to adapt; empty adapts every linear layer of the blocks.
        trunk_bits: keep the linear layers of the server's frozen blocks in 8 or 4 bits, through the bitsandbytes
            library; 0 does not.
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
    targets: tuple[str, ...] = ()
    trunk_bits: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        problems = []
        if not self.name:
            problems.append("model.name is empty; give nano-vit, a local folder, or a hub name")
        if self.cut < 0:
            problems.append(f"model.cut is {self.cut}; it must be 0 or more (0 keeps only the embedding)")
        if self.labels not in LABELS:
            problems.append(f"model.labels is {self.labels!r}; choose one of {', '.join(LABELS)}")
        if self.trainable not in TRAINABLE:
            problems.append(f"model.trainable is {self.trainable!r}; choose one of {', '.join(TRAINABLE)}")
        if self.trunk_bits not in TRUNK_BITS:
            problems.append(f"model.trunk_bits is {self.trunk_bits}; choose 0 (not quantized), 8 or 4")
        if self.rank < 1:
            problems.append(f"model.rank is {self.rank}; it must be at least 1")
        if not self.alpha > 0:
            problems.append(f"model.alpha is {self.alpha}; it must be positive")
        if not 0 <= self.dropout < 1:
            problems.append(f"model.dropout is {self.dropout}; it must be in [0, 1)")
        if self.dtype not in DTYPES:
            problems.append(f"model.dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if problems:
            raise ConfigError(problems)
