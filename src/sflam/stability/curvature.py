"""The two constants of a stability bound, measured at the end of training: steepness and least curvature.

n samples, P trained numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sflam.learn.evaluate import logits_of
from sflam.learn.examples import Examples
from sflam.model.loss import group_losses

Samples = NDArray[np.int64]
Product = Callable[[NDArray[np.float64]], NDArray[np.float64]]
CHUNK = 64  # samples of one pass of a Hessian product
SETTLED = 6
"""Products without news after which the least Ritz value has settled."""


def sample_losses(model: PeftModel, examples: Examples, samples: Samples) -> Tensor:
    """Return [n], the loss of each sample; differentiable where gradients are on."""
    batch = examples.take(samples)
    return group_losses(examples.task, logits_of(model, batch), batch.labels, (1,) * len(samples))


def steepest(model: PeftModel, examples: Examples, samples: Samples, trained: Sequence[Tensor]) -> float:
    """Return rho, the largest gradient norm of a sample's loss over ``trained``, in loss per unit of parameter."""
    largest = 0.0
    for sample in samples:
        loss = sample_losses(model, examples, np.array([sample])).sum()
        gradients = torch.autograd.grad(loss, list(trained))
        largest = max(largest, float(torch.cat([g.flatten() for g in gradients]).norm()))
    return largest


def least_curvature(
    model: PeftModel,
    examples: Examples,
    samples: Samples,
    trained: Sequence[Tensor],
    *,
    seed: int = 0,
    tolerance: float = 1e-2,
    steps: int = 50,
) -> float:
    """Return the least eigenvalue of the Hessian of the mean loss over ``trained``, by Lanczos.

    It is negative where the loss is not convex there. In loss per squared unit of parameter.

    Args:
        model: the trained model, in evaluation mode.
        examples: where ``samples`` are.
        samples: the training set [n].
        trained: the tensors that were trained, P numbers in all.
        seed: of the first direction.
        tolerance: it has settled when the last few Hessian products lowered it by no larger part than this.
        steps: Hessian products at most; what was reached then is returned.
    """
    shapes = [tensor.shape for tensor in trained]
    sizes = [tensor.numel() for tensor in trained]
    dtype, device = trained[0].dtype, trained[0].device

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = torch.from_numpy(np.asarray(vector, np.float64).ravel()).to(device, dtype)
        parts = [part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True)]
        out = [torch.zeros(size, dtype=torch.float64) for size in sizes]
        for start in range(0, len(samples), CHUNK):
            # The fused attention kernels have no second derivative.
            with sdpa_kernel(SDPBackend.MATH):
                loss = sample_losses(model, examples, samples[start : start + CHUNK]).sum() / len(samples)
                first = torch.autograd.grad(loss, list(trained), create_graph=True)
                along = sum((g * v).sum() for g, v in zip(first, parts, strict=True))
                assert isinstance(along, Tensor)
                second = torch.autograd.grad(along, list(trained))
            for total, own in zip(out, second, strict=True):
                total += own.detach().double().flatten().cpu()
        return torch.cat(out).numpy()

    first = np.random.default_rng(seed).standard_normal(sum(sizes))
    return _least_ritz(product, first, tolerance, steps)


def _least_ritz(product: Product, first: NDArray[np.float64], tolerance: float, steps: int) -> float:
    """Return the least Ritz value, once it has settled; every vector is orthogonalised against all before.

    ARPACK restarts, and counts a restart that has not converged as nothing: it takes three times the products.
    """
    basis = [first / np.linalg.norm(first)]
    diagonal: list[float] = []
    beside: list[float] = []
    least: list[float] = []
    for _ in range(min(steps, len(first))):
        w = product(basis[-1])
        diagonal.append(float(basis[-1] @ w))
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        least.append(float(np.linalg.eigvalsh(matrix)[0]))
        if len(least) > SETTLED and least[-1 - SETTLED] - least[-1] <= tolerance * abs(least[-1]):
            break
        for _ in range(2):
            for vector in basis:
                w = w - (vector @ w) * vector
        norm = float(np.linalg.norm(w))
        if norm < 1e-10:
            break
        beside.append(norm)
        basis.append(w / norm)
    return least[-1]
