"""The attacks on images, and how near they come.

N images, M public ones, C channels, S pixels a side; pixels in [0, 1] where they are compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.data.images import ImageSpec
from sflam.learn.examples import Minibatch
from sflam.privacy.decoder import decoded
from sflam.privacy.finding import Finding, Picture
from sflam.privacy.inversion import descended
from sflam.privacy.linear import affine_inverse, is_affine
from sflam.privacy.observer import Observer
from sflam.privacy.similarity import cosine, psnr, ssim

SMOOTH = 0.01
"""What the total variation counts beside the distance of activations in a descent."""
INPUT = "pixel_values"
Floats = NDArray[np.float64]


def attack_images(
    observer: Observer,
    seeing: Observer,
    spec: ImageSpec,
    targets: Minibatch,
    public: Minibatch,
    bits: int | None,
    steps: int,
) -> tuple[list[Finding], Picture]:
    """Return what every attack on images finds at a cut and width, and the pictures of the best.

    Args:
        observer: of the cut.
        seeing: of the cut after the last block, whose activations say whether a model sees the same in two images.
        spec: of the model's pixels.
        targets: the images attacked.
        public: images that the server has.
        bits: per value sent; None for floats.
        steps: of a descent.
    """
    received = observer.received(targets, bits)
    seen = observer.seen(targets, received.shape[1])
    pixels = targets.inputs[INPUT]
    low, high = (_normalized(spec, value).to(pixels) for value in (0.0, 1.0))
    mean = public.inputs[INPUT].mean(0, keepdim=True).expand_as(pixels)
    attempts: dict[str, Tensor] = {}
    run, start = _run(observer), None
    if observer.drop is not None:  # what did not come says nothing, and is guessed to be as in other images
        run, start = _run(observer, seen), mean
    if is_affine(_run(observer), pixels[:1]):
        attempts["inversion"] = affine_inverse(run, received, pixels, start)
    attempts["descent"] = descended(
        run, received, pixels, steps=steps, smooth=SMOOTH, low=low, high=high, start=start
    )
    known = observer.received(public, bits, whole=True)
    found = _decoded(known, public.inputs[INPUT], received, None if observer.drop is None else seen)
    attempts["decoder"] = torch.from_numpy(found).to(pixels).view_as(pixels)
    original, features = shown(spec, pixels), _flat(seeing.received(targets, None))
    guess = float(np.median(ssim(original, shown(spec, mean))))
    findings, best = [], None
    for name, images in attempts.items():
        guessed = shown(spec, images)
        near = ssim(original, guessed)
        there = _flat(seeing.exact(Minibatch({INPUT: images}, None, targets.labels)))
        findings.append(
            Finding(
                cut=observer.cut,
                bits=bits,
                attack=name,
                about="images",
                measure="median SSIM",
                score=float(np.median(near)),
                guess=guess,
                more={
                    "worst_ssim": float(near.max()),
                    "psnr_db": float(np.median(psnr(original, guessed))),
                    "features": float(np.median(cosine(features, there))),
                },
            )
        )
        if best is None or np.median(near) > np.median(best.similarity):
            best = Picture(np.moveaxis(original, 1, -1), np.moveaxis(guessed, 1, -1), near)
    assert best is not None
    return findings, best


def shown(spec: ImageSpec, pixels: Tensor) -> Floats:
    """Return a model's pixels [N,C,S,S] as brightness in [0, 1]."""
    mean, std = (np.array(each)[:, None, None] for each in (spec.mean, spec.std))
    found: Floats = np.clip(pixels.detach().double().cpu().numpy() * std + mean, 0.0, 1.0)
    return found


def _run(observer: Observer, seen: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Return pixels to activations; with ``seen`` [N,T], zero where a token of an image did not come."""
    if seen is None:
        return lambda pixels: observer.run({INPUT: pixels})
    return lambda pixels: observer.run({INPUT: pixels}) * seen[:, :, None]


def _decoded(known: Tensor, inputs: Tensor, received: Tensor, seen: Tensor | None) -> Floats:
    """Return [N,P] by a decoder; with ``seen`` [N,T] by one of each image, learned for the tokens that came of it."""
    if seen is None:
        return decoded(*(_flat(each) for each in (known, inputs, received)))
    rows = [
        decoded(_flat(known[:, own]), _flat(inputs), _flat(each[None, own]))
        for each, own in zip(received, seen, strict=True)
    ]
    return np.concatenate(rows)


def _normalized(spec: ImageSpec, value: float) -> Tensor:
    """Return [C,1,1], a brightness as a model's pixel."""
    return torch.tensor([(value - m) / s for m, s in zip(spec.mean, spec.std, strict=True)]).view(-1, 1, 1)


def _flat(values: Tensor) -> Floats:
    found: Floats = values.detach().double().flatten(1).cpu().numpy()
    return found
