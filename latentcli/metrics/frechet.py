"""Computes the Frechet distance between two sets of feature vectors, which are streamed.

Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions"; Heusel et
al. 2017 take it between image features, Unterthiner et al. 2018 between video features:

    |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

C is the biased covariance, a sum divided by N, as cd-fvd has it. The published video script puts
the raw second moment E[f f^T] where C belongs, so its figures are no Frechet distances; "uncentred"
does the same, only to compare with them.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

COMPATS = ("centred", "uncentred")


class FeatureSums:
    """Count, mean and second moments of a stream of feature vectors, in float64.

    Chunks are merged by Chan, Golub and LeVeque 1979, about their own means, so nothing cancels
    however far the features are from 0.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._squares = torch.zeros(dim, dim, dtype=torch.float64)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return len(self.mean)

    def add(self, features: Tensor) -> None:
        """More vectors: [N, D] of any float dtype, on any device.

        ValueError for another shape and for values that are not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features are {tuple(features.shape)}, they must be [N, {self.dim}]")
        if not len(features):
            return
        rows = features.detach().to("cpu", torch.float64)
        if not torch.isfinite(rows).all():
            raise ValueError("features hold values that are not finite")
        part = FeatureSums(self.dim)
        part.count, part.mean = len(rows), rows.mean(0)
        centred = rows - part.mean
        part._squares = centred.T @ centred
        self.merge(part)

    def merge(self, other: FeatureSums) -> Self:
        """Adds what another one has seen; ValueError where its vectors have another length."""
        if other.dim != self.dim:
            raise ValueError(f"vectors of {other.dim} values cannot join those of {self.dim}")
        count = self.count + other.count
        if count:
            shift = other.mean - self.mean
            weight = self.count * other.count / count
            self._squares += other._squares + weight * torch.outer(shift, shift)
            self.mean = self.mean + shift * (other.count / count)
            self.count = count
        return self

    @property
    def covariance(self) -> Tensor:
        """Float64 [D, D], divided by the count; ValueError where nothing was added."""
        if not self.count:
            raise ValueError("there are no features")
        return self._squares / self.count

    @property
    def second_moment(self) -> Tensor:
        """E[f f^T], float64 [D, D]; ValueError where nothing was added."""
        return self.covariance + torch.outer(self.mean, self.mean)


def frechet_distance(a: FeatureSums, b: FeatureSums, compat: str = "centred") -> float:
    """The distance (a squared length, in units of the features squared), never negative.

    `compat` is one of COMPATS. The part of the covariances is 0 where it is below the rounding of
    its own arithmetic, as for identical sets. ValueError for sets that are empty or of different
    dimensions, and for features so large that their squares are no float64 any more.
    """
    if compat not in COMPATS:
        raise ValueError(f"compat is {compat!r}; allowed are {', '.join(COMPATS)}")
    if a.dim != b.dim:
        raise ValueError(
            f"features have {a.dim} and {b.dim} values, both must have the same number"
        )
    first, second = (
        sums.covariance if compat == "centred" else sums.second_moment for sums in (a, b)
    )
    if not all(torch.isfinite(moments).all() for moments in (first, second)):
        raise ValueError("features are so large that their squares overflow")
    spread = float(first.trace() + second.trace())
    cross = _nuclear_norm(_factor(first).T @ _factor(second))
    rest = spread - 2 * cross
    noise = a.dim * torch.finfo(torch.float64).eps * spread
    return float((a.mean - b.mean).square().sum()) + (rest if rest > noise else 0.0)


def _factor(moments: Tensor) -> Tensor:
    """A of the symmetric C = A A^T, [D, rank].

    tr((C1 C2)^(1/2)) is the sum of the singular values of A1^T A2 (both are the roots of the
    eigenvalues of A1^T C2 A1), which takes no root of a matrix that is not symmetric, and no
    inverse, so C may be singular: what eigh gives in place of eigenvalues of 0 is left out.
    """
    values, vectors = torch.linalg.eigh(moments)
    least = values[-1] * len(values) * torch.finfo(torch.float64).eps
    kept = values > least.clamp_min(0)
    factor: Tensor = vectors[:, kept] * values[kept].sqrt()
    return factor


def _nuclear_norm(matrix: Tensor) -> float:
    return float(torch.linalg.svdvals(matrix).sum()) if matrix.numel() else 0.0
