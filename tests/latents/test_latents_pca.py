"""The colours of a set of latents against numpy's own decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentcli.latents.pca import SPREAD, ChannelMoments, colours, fit


def latents_of(count: int, channels: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(channels, channels, generator=generator)
    plain = torch.randn(count, channels, 5, 4, generator=generator)
    return torch.einsum("ij,njhw->nihw", mixed, plain) + 3


def moments_of(*parts: torch.Tensor) -> ChannelMoments:
    moments = ChannelMoments()
    for part in parts:
        moments.add(part)
    return moments


def test_mean_and_covariance_are_numpys_whatever_the_batches():
    latents = latents_of(9)
    moments = moments_of(latents[:1], latents[1:6], latents[6:])
    observed = latents.permute(1, 0, 2, 3).reshape(6, -1).double().numpy()
    np.testing.assert_allclose(moments.mean, observed.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(observed, bias=True), rtol=1e-10)
    assert moments.count == 9 * 20


def test_axes_are_the_singular_vectors_of_the_centred_set():
    latents = latents_of(7)
    basis = fit(moments_of(latents))
    observed = latents.permute(1, 0, 2, 3).reshape(6, -1).double().numpy()
    observed -= observed.mean(axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(observed, full_matrices=False)
    np.testing.assert_allclose(np.abs(basis.axes @ left[:, :3]), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(basis.deviations, values[:3] / np.sqrt(7 * 20), rtol=1e-9)
    assert basis.explained == pytest.approx((values[:3] ** 2).sum() / (values**2).sum())
    assert (basis.axes[np.arange(3), np.abs(basis.axes).argmax(axis=1)] > 0).all()


def test_colours_are_grey_at_the_mean_and_full_at_the_spread():
    basis = fit(moments_of(latents_of(8)))
    points = [
        basis.mean,
        *(basis.mean + SPREAD * basis.deviations[k] * basis.axes[k] for k in (0, 2)),
    ]
    shown = colours(torch.from_numpy(np.stack(points)).reshape(3, 6, 1, 1), basis)
    assert shown.dtype == torch.uint8
    grey = torch.tensor([[128, 128, 128], [255, 128, 128], [128, 128, 255]])
    assert (shown.flatten(1).int() - grey).abs().max() <= 1  # 127.5 may round either way


def test_fewer_than_three_channels_and_no_variance_are_grey():
    basis = fit(moments_of(torch.full((2, 2, 3, 3), 4.0)))
    assert basis.explained == 1.0
    assert colours(torch.full((1, 2, 3, 3), 4.0), basis).unique().tolist() == [128]


def test_no_latents_and_other_channels_are_refused():
    with pytest.raises(ValueError, match="no latents"):
        fit(ChannelMoments())
    with pytest.raises(ValueError, match="3 channels, those before 6"):
        moments_of(latents_of(1), torch.zeros(1, 3, 2, 2))
