"""How much a reconstruction shows of the original: PSNR and SSIM of images, and whether a model sees the same in both.

SSIM is that of Wang, Bovik, Sheikh and Simoncelli (IEEE Transactions on Image Processing 13, 2004): Gaussian windows of
1.5 pixels, K1 = 0.01, K2 = 0.03, the mean over all windows and channels.

N images, C channels, S pixels a side; pixels in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Images = NDArray[np.float64]

SIGMA = 1.5
BRIGHT, CONTRAST = 0.01**2, 0.03**2


def psnr(original: Images, found: Images) -> NDArray[np.float64]:
    """Return [N], the peak signal-to-noise ratio in dB of images [N,C,S,S]; 100 where they are the same."""
    error = ((original - found) ** 2).mean(axis=(1, 2, 3))
    ratio: NDArray[np.float64] = -10 * np.log10(np.maximum(error, 1e-10))
    return ratio


def ssim(original: Images, found: Images) -> NDArray[np.float64]:
    """Return [N], the structural similarity of images [N,C,S,S]: 1 for the same, about 0 for unrelated ones."""
    a, b = (np.asarray(each, float) for each in (original, found))
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a, variance_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    shared = _blurred(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + BRIGHT) / (mean_a**2 + mean_b**2 + BRIGHT)
    shape = (2 * shared + CONTRAST) / (variance_a + variance_b + CONTRAST)
    value: NDArray[np.float64] = (light * shape).mean(axis=(1, 2, 3))
    return value


def cosine(one: Images, other: Images) -> NDArray[np.float64]:
    """Return [N], the cosine between rows [N,D]; 0 where one of them is zero."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    value: NDArray[np.float64] = (one * other).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    return value


def _blurred(images: Images) -> Images:
    """Return windowed means; the edge is mirrored."""
    found: Images = gaussian_filter(images, sigma=(0, 0, SIGMA, SIGMA), truncate=3.5)
    return found
