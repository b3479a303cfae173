"""Which token the head of a family reads, and which families bear that others are dropped at the cut. Torch-free.

A family is here where positions are added before the first block, blocks treat tokens as a set (or, with a causal mask,
as a list in their order), and the head reads one token, perhaps beside the mean of the others. A family of one's own
that is so adds its name.
"""

from __future__ import annotations

from sflam.errors import ModelError

FIRST, FIRST_AND_MEAN, LAST = "first", "first and mean", "last"

KEPT_TOKEN: dict[str, str] = {
    "vit": FIRST,
    "deit": FIRST,
    "dinov2": FIRST_AND_MEAN,
    "bert": FIRST,
    "roberta": FIRST,
    "distilbert": FIRST,
    "gpt2": LAST,
}
"""Family -> what its classification head reads."""

ROTARY = "its blocks rotate queries and keys by a token's place"
WHY = {
    "beit": "its blocks add biases by the places of patches, and its head reads the mean of all of them",
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), ROTARY),
}
"""Family -> why its tokens are all needed, where that is known."""


def kept_token(family: str, *, per_token: bool) -> str:
    """Return which token of a sample always goes up.

    Args:
        family: its name.
        per_token: whether every token has a label.

    Raises:
        ModelError: tokens of such a model cannot be dropped.
    """
    if per_token:
        why = "a language model learns from every token"
    elif family in KEPT_TOKEN:
        return KEPT_TOKEN[family]
    else:
        why = WHY.get(family, "nothing is known of its blocks that would let tokens be left out")
    raise ModelError(
        f"privacy.drop_tokens does not go with a model of family {family!r}: {why}; set privacy.drop_tokens = 0, or "
        f"use a classifier of one of {', '.join(KEPT_TOKEN)}"
    )
