"""Tiny models with a tokenizer of fifteen words, and reviews in a CSV file, for tests on texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sflam.model.backbone import quiet
from tests.tiny import tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"good bad film plot a the of was very and".split()]


def write_reviews(folder: Path) -> None:
    """Write ``bert/``, ``gpt2-lm/``, both without a tokenizer in ``bare/``, and ``reviews.csv`` of sixty rows."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    plain.save_pretrained(folder / "gpt2-lm")
    words.post_processor = TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    marked = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    marked.save_pretrained(folder / "bert")
    for kind in ("bert", "gpt2-lm"):
        with quiet():
            tiny(kind, dtype=torch.float32).model.save_pretrained(folder / kind)
            tiny(kind, dtype=torch.float32).model.save_pretrained(folder / "bare" / kind)
    draw = np.random.default_rng(0)
    rows = ["sentence,label"]
    for index in range(60):
        filler = " ".join(draw.choice(WORDS[7:], draw.integers(2, 9)))
        rows.append(f"{filler} {('bad', 'good')[index % 2]},{('negative', 'positive')[index % 2]}")
    (folder / "reviews.csv").write_text("\n".join(rows) + "\n")
