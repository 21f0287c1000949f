from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.types import LatentSpec
from latentcli.latents.schema import (
    PARTS,
    parts_of,
    posterior_text,
    shard_metadata,
    split_name,
    tensor_name,
)


@given(st.text(min_size=1), st.sampled_from(PARTS))
def test_names_come_apart_again(key, part):
    assert split_name(tensor_name(key, part)) == (key, part)


def test_keys_may_look_like_names():
    assert split_name("a/b/latent/latent_flip") == ("a/b/latent", "latent_flip")


@pytest.mark.parametrize("name", ["latent", "/latent", "a/b", "a", "", "a/latent/"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="<key>/<part>"):
        split_name(name)


def test_other_parts_are_refused():
    with pytest.raises(ValueError, match="latent, mean, logsnr"):
        tensor_name("a", "variance")
    with pytest.raises(ValueError, match="allowed parts"):
        tensor_name("", "latent")


def test_parts_by_state():
    assert parts_of("whitened") == parts_of("raw") == ("latent",)
    assert parts_of("moments") == ("mean", "logsnr")
    assert parts_of("moments", ("mean", "logvar")) == ("mean", "logvar")
    assert parts_of("scaled", class_token=True) == ("latent", "class_token")
    assert parts_of("raw", clips=True) == ("latent", "times", "clock")
    assert parts_of("raw", flip=True) == ("latent", "latent_flip")
    assert parts_of("moments", flip=True) == ("mean", "logsnr", "mean_flip", "logsnr_flip")
    assert parts_of("moments", ("mean", "logvar"), class_token=True, flip=True) == (
        *("mean", "logvar", "class_token"),
        *("mean_flip", "logvar_flip", "class_token_flip"),
    )
    with pytest.raises(ValueError, match="allowed are whitened, scaled, raw, moments"):
        parts_of("mean")


def test_posterior_words():
    assert posterior_text("whitened") == "mode"
    assert posterior_text("raw", 7) == "sample seed=7"
    assert posterior_text("moments", 7) == "moments"


def test_metadata_are_flat_strings():
    metadata = shard_metadata(
        LatentSpec(channels=128, downscale=16, size_divisor=32, space="flux2"),
        state="whitened",
        posterior="mode",
        model="full_capacitor",
        model_revision="abc",
        weights_sha256="0" * 64,
        spec_hash="1" * 64,
        unit=7,
    )
    assert all(type(value) is str for value in metadata.values())
    assert metadata["format"] == "latentcli"
    assert metadata["latent_space"] == "flux2#whitened"
    assert (metadata["downscale"], metadata["channels"], metadata["unit"]) == ("16", "128", "7")
    assert metadata["image_range"] == "-1,1"
