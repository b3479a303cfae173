"""The registries, the settings, and the identity scheme."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import QUANTIZERS, quantizer
from sflam.codec.settings import SCHEMES, QuantSettings
from sflam.codec.torch_quantizers import TORCH_QUANTIZERS, torch_quantizer
from sflam.errors import ConfigError, QuantizerError


def test_every_scheme_has_both_sides_under_its_name() -> None:
    assert set(SCHEMES) == set(QUANTIZERS) == set(TORCH_QUANTIZERS)
    for name in SCHEMES:
        assert quantizer(name).name == torch_quantizer(name).name == name
        for bits in (1, 8, 16):
            assert quantizer(name).nbytes(7, 9, bits) == torch_quantizer(name).nbytes(7, 9, bits)


@pytest.mark.parametrize("find", [quantizer, torch_quantizer])
def test_an_unknown_scheme_names_the_nearest_and_the_known(find: object) -> None:
    with pytest.raises(
        QuantizerError,
        match=r"'unifrom', did you mean 'uniform'\? \(known: identity, rotated, topk, uniform\)",
    ):
        find("unifrom")  # type: ignore[operator]


def test_settings_report_all_problems_together() -> None:
    assert QuantSettings() == QuantSettings(scheme="uniform", bits_up=8, bits_down=8)
    with pytest.raises(ConfigError) as caught:
        QuantSettings(scheme="uniforn", bits_up=0, bits_down=17)
    assert len(caught.value.problems) == 3
    assert "did you mean 'uniform'" in caught.value.problems[0]
    assert "quant.bits_up is 0" in caught.value.problems[1] and "between 1 and 16" in caught.value.problems[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identity_is_exact_and_as_wide_as_its_type(dtype: type[np.floating]) -> None:
    x = np.array([[0.1, -0.0, 1e-45], [3.4e38, -7, 0]], dtype)
    packed = quantizer("identity").encode(x, 8, 0)  # type: ignore[arg-type]
    width = np.dtype(dtype).itemsize
    assert (packed.bits, packed.codes.size, packed.side.shape) == (8 * width, 6 * width, (0, 2))
    assert packed.nbytes == quantizer("identity").nbytes(2, 3, packed.bits)
    decoded = quantizer("identity").decode(packed)
    assert decoded.dtype == dtype and decoded.tobytes() == x.tobytes()
    assert torch_quantizer("identity").decode(packed).numpy().tobytes() == x.tobytes()
    on_torch = torch_quantizer("identity").encode(torch.from_numpy(x), 8, 0)
    assert on_torch.codes.tobytes() == packed.codes.tobytes() and on_torch.bits == packed.bits


def test_identity_copies_nothing_it_could_change() -> None:
    x = np.ones((2, 3), np.float32)
    decoded = torch_quantizer("identity").decode(quantizer("identity").encode(x, 8, 0))
    decoded += 1
    assert np.all(x == 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_identity_refuses_nan_and_inf_both_ways(value: float) -> None:
    x = np.array([[0, 0], [0, value]], np.float32)
    with pytest.raises(QuantizerError, match="token 1"):
        quantizer("identity").encode(x, 8, 0)
    codes = x.reshape(-1).view(np.uint8)
    with pytest.raises(QuantizerError, match="token 1"):
        quantizer("identity").decode(Packed("identity", 32, 2, 2, codes, np.empty((0, 2), np.uint16)))


def test_identity_refuses_other_types_and_shapes() -> None:
    for x in (np.zeros((2, 2), np.float16), np.zeros((2, 2), np.int32), np.zeros(4, np.float32)):
        with pytest.raises(QuantizerError, match="n, d"):
            quantizer("identity").encode(x, 8, 0)  # type: ignore[arg-type]


def test_no_scheme_decodes_anothers_tokens() -> None:
    x = np.ones((2, 3), np.float32)
    for ours, theirs in itertools.permutations(SCHEMES, 2):
        packed = quantizer(theirs).encode(x, 8, 0)
        with pytest.raises(QuantizerError, match="cannot be decoded"):
            quantizer(ours).decode(packed)
        with pytest.raises(QuantizerError, match="cannot be decoded"):
            torch_quantizer(ours).decode(packed)


def test_the_device_codec_is_numpy_only() -> None:
    """What a lean device imports to quantize and speak brings neither torch nor anything built on it."""
    code = (
        "import sys, sflam.codec.quantizers, sflam.codec.bodies;"
        "print(sorted({'torch', 'safetensors', 'scipy', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
