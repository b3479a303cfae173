"""Tiny models with a tokenizer of fifteen words, and reviews in a CSV file, for tests on texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from sflam.model.backbone import quiet
from tests.tiny import GPT2, tiny

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


def write_asked(folder: Path) -> None:
    """Write what ``write_reviews`` does, its language model with an end of text and a head of its own, and questions.

    ``asked.jsonl`` has sixty prompts that end in good or bad, with the answer that each word has.
    """
    import transformers

    write_reviews(folder)
    # a head of its own can learn to be sure, however small the embedding's numbers
    free = {"tie_word_embeddings": False, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    torch.manual_seed(0)
    with quiet():
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, **free))
        model.save_pretrained(folder / "gpt2-lm")
    path = folder / "gpt2-lm" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "[SEP]"}))
    draw = np.random.default_rng(0)
    rows = []
    for index in range(60):
        filler = " ".join(draw.choice(WORDS[7:], draw.integers(2, 6)))
        reply = ("very bad plot", "a good film")[index % 2]
        rows.append({"ask": f"{filler} {('bad', 'good')[index % 2]}", "reply": reply, "id": str(index)})
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
