"""A run's language model goes on with texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sflam.errors import ConfigError, RunError
from sflam.model.backbone import quiet
from sflam.model.families import CAUSAL
from sflam.model.tokenizer import Tokenizer
from sflam.records.run_folder import RunFolder
from sflam.run.saved_model import saved_model
from sflam.seeds import derive

NEW_TOKENS = 64


@dataclass(frozen=True)
class Generated:
    """What a model made of a prompt.

    Attributes:
        prompt: as it was given.
        text: what follows it.
        tokens: how many tokens that is, with the end of the text where the model came to one.
        ended: whether it did.
    """

    prompt: str
    text: str
    tokens: int
    ended: bool


def generate(
    run_dir: str | Path,
    prompts: Sequence[str],
    *,
    new_tokens: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    device: int | None = None,
) -> tuple[Generated, ...]:
    """Go on with prompts by the language model of a finished run.

    Args:
        run_dir: the run's folder.
        prompts: texts, each gone on with by itself.
        new_tokens: at most so many tokens follow; None is 64, or what the model still sees.
        temperature: 0 takes the likeliest token each time; above, one is drawn, the more freely the higher.
        top_p: draw among the likeliest tokens that together have this probability.
        seed: of the draws.
        device: whose own model, of a run with ``learn.personal``.

    Raises:
        SflamError: the run is not finished or no language model's, or a prompt is empty or too long.
    """
    if not prompts:
        raise ConfigError("there is no prompt; give at least one with --prompt")
    if (new_tokens is not None and new_tokens < 1) or temperature < 0 or not 0 < top_p <= 1:
        raise ConfigError(
            f"new tokens {new_tokens}, temperature {temperature:g}, top-p {top_p:g}; they must be at least 1, at least "
            "0, and in (0, 1]"
        )
    run = RunFolder(Path(run_dir))
    job = run.read_job()
    if run.read_result()["classes"]:
        raise RunError(f"{run.path} trained a classifier, which predicts labels; leave --generate out")
    tokenizer = Tokenizer(job.model.name)
    rows = tokenizer.encode(list(prompts), 0)
    longest = tokenizer.longest()
    for prompt, row in zip(prompts, rows, strict=True):
        if not row:
            raise ConfigError(f"the prompt {prompt!r} gives no token; give one with a word in it")
        if longest and len(row) + (new_tokens or 1) > longest:
            raise ConfigError(
                f"the prompt {prompt[:40]!r} has {len(row)} tokens, and {new_tokens or 1} more are beyond the "
                f"{longest} that the model sees; shorten it, or take fewer with --new-tokens"
            )
    backbone, model, _ = saved_model(run, job, "text", 0, device)
    assert backbone.task == CAUSAL
    model.eval()
    model.config.use_cache = True
    found = []
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        most = new_tokens or (min(NEW_TOKENS, longest - len(row)) if longest else NEW_TOKENS)
        own = derive(seed, "generate", number)
        found.append(_continued(model, tokenizer.loaded, prompt, row, most, temperature, top_p, own))
    return tuple(found)


def _continued(
    model: Any,
    tokenizer: Any,
    prompt: str,
    row: Sequence[int],
    new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> Generated:
    ids = torch.tensor([row], device=model.device)
    drawn: dict[str, Any] = {"do_sample": False}
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    end = tokenizer.eos_token_id
    with torch.no_grad(), torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            eos_token_id=end,
            pad_token_id=end if end is not None else 0,
            **drawn,
        )
    new = found[0, len(row) :].tolist()
    ended = end is not None and end in new
    text = tokenizer.decode(new[: new.index(end)] if ended else new, skip_special_tokens=True)
    return Generated(prompt, text, len(new), ended)
