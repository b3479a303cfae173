"""Well-known models by name, with the numbers their authors published in config.json: planning needs no download."""

from __future__ import annotations

from typing import Any


def _sizes(family: str, hidden: int, blocks: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": hidden,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }


def _image(family: str, hidden: int, blocks: int, heads: int, **more: Any) -> dict[str, Any]:
    return (
        _sizes(family, hidden, blocks, heads)
        | {"image_size": 224, "patch_size": 16, "num_channels": 3}
        | more
    )


def _encoder(
    family: str, hidden: int, blocks: int, heads: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return _sizes(family, hidden, blocks, heads) | {"vocab_size": vocabulary} | more


def _gpt2(hidden: int, blocks: int, heads: int) -> dict[str, Any]:
    sizes = {"n_embd": hidden, "n_layer": blocks, "n_head": heads, "vocab_size": 50257, "n_positions": 1024}
    return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]} | sizes


def _decoder(
    family: str, hidden: int, blocks: int, heads: int, groups: int, size: int, inner: int, vocabulary: int
) -> dict[str, Any]:
    own = {"num_key_value_heads": groups, "head_dim": size, "intermediate_size": inner}
    return _encoder(family, hidden, blocks, heads, vocabulary, architectures=["ForCausalLM"], **own)


_DINOV2 = {"image_size": 518, "patch_size": 14, "mlp_ratio": 4}
_BERT = _encoder("bert", 768, 12, 12, 30522)
_ROBERTA = _encoder("roberta", 768, 12, 12, 50265, max_position_embeddings=514, type_vocab_size=1)
_DISTIL = {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
_DISTIL |= {"vocab_size": 30522, "max_position_embeddings": 512}

KNOWN: dict[str, dict[str, Any]] = {
    "google/vit-base-patch16-224": _image("vit", 768, 12, 12),
    "google/vit-base-patch16-224-in21k": _image("vit", 768, 12, 12),
    "google/vit-base-patch32-224-in21k": _image("vit", 768, 12, 12, patch_size=32),
    "google/vit-large-patch16-224": _image("vit", 1024, 24, 16),
    "google/vit-huge-patch14-224-in21k": _image("vit", 1280, 32, 16, patch_size=14),
    "facebook/deit-tiny-patch16-224": _image("vit", 192, 12, 3),  # DeiT without distillation is a ViT
    "facebook/deit-small-patch16-224": _image("vit", 384, 12, 6),
    "facebook/deit-base-patch16-224": _image("vit", 768, 12, 12),
    "facebook/deit-base-distilled-patch16-224": _image("deit", 768, 12, 12),
    "microsoft/beit-base-patch16-224": _image("beit", 768, 12, 12),
    "facebook/dinov2-small": _image("dinov2", 384, 12, 6, **_DINOV2),
    "facebook/dinov2-base": _image("dinov2", 768, 12, 12, **_DINOV2),
    "facebook/dinov2-large": _image("dinov2", 1024, 24, 16, **_DINOV2),
    "bert-base-uncased": _BERT,
    "google-bert/bert-base-uncased": _BERT,
    "bert-large-uncased": _encoder("bert", 1024, 24, 16, 30522),
    "roberta-base": _ROBERTA,
    "FacebookAI/roberta-base": _ROBERTA,
    "distilbert-base-uncased": _DISTIL,
    "distilbert/distilbert-base-uncased": _DISTIL,
    "gpt2": _gpt2(768, 12, 12),
    "openai-community/gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "meta-llama/Llama-3.2-1B": _decoder("llama", 2048, 16, 32, 8, 64, 8192, 128256),
    "meta-llama/Llama-3.2-3B": _decoder("llama", 3072, 28, 24, 8, 128, 8192, 128256),
    "meta-llama/Llama-3.1-8B": _decoder("llama", 4096, 32, 32, 8, 128, 14336, 128256),
    "mistralai/Mistral-7B-v0.1": _decoder("mistral", 4096, 32, 32, 8, 128, 14336, 32000),
    "Qwen/Qwen2-0.5B": _decoder("qwen2", 896, 24, 14, 2, 64, 4864, 151936),
    "Qwen/Qwen2.5-1.5B": _decoder("qwen2", 1536, 28, 12, 2, 128, 8960, 151936),
    "Qwen/Qwen3-0.6B": _decoder("qwen3", 1024, 28, 16, 8, 128, 3072, 151936),
    "google/gemma-2b": _decoder("gemma", 2048, 18, 8, 1, 256, 16384, 256000),
}
"""Name -> the fields of its config.json that a cost depends on."""
