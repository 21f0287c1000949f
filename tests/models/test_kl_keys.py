"""Every spelling of a KL checkpoint's names maps to diffusers' own, one to one."""

from __future__ import annotations

import pytest
from klkit import MANIFESTS, TO_LDM, TO_OLDER, TO_ORIGINAL, respelt
from paritykit import manifest

from latentcli.models.kl_keys import parts_of, present_names

ORIGINAL = [name for name in MANIFESTS if "temporal" not in name]
"""Those that exist in the original spelling too."""


@pytest.mark.parametrize("rules", [TO_ORIGINAL, TO_LDM, TO_OLDER], ids=["bfl", "ldm", "older"])
@pytest.mark.parametrize("name", ORIGINAL)
def test_spellings_map_one_to_one_both_ways(shared, name, rules):
    names = list(manifest(shared, name))
    spelt = {respelt(n, rules): n for n in names}
    assert len(spelt) == len(names)
    assert present_names(list(spelt), 4) == spelt
    assert present_names(names, 4) == {n: n for n in names}
    assert not any("_block" in n for n in spelt if n.startswith("encoder.")) or rules is TO_OLDER


def test_older_attention_names_of_the_temporal_decoder(shared):
    names = list(manifest(shared, "autoencoder_kl_temporal_decoder_svd"))
    spelt = {respelt(n, TO_OLDER): n for n in names}
    assert sum(a != b for a, b in spelt.items()) == 16
    assert present_names(list(spelt), 4) == spelt


def test_halves_are_told_by_their_names(shared):
    names = [respelt(n, TO_ORIGINAL) for n in manifest(shared, "autoencoder_kl_flux2")]
    assert parts_of(names) == "both"
    for half in ("encoder", "decoder"):
        full = [n for n in names if n.startswith(f"{half}.")]
        bare = [n.removeprefix(f"{half}.") for n in full]
        assert parts_of(full) == parts_of(bare) == parts_of([*bare, "bn.running_var"]) == half
        found = present_names([*bare, "bn.running_var"], 4)
        assert set(found.values()) == {*present_names(full, 4).values(), "bn.running_var"}
    assert parts_of(["conv_in.weight"]) == "both"


def test_levels_that_a_network_lacks_keep_their_names():
    name = "decoder.up.4.block.0.conv1.weight"
    assert present_names([name], 4) == {name: name}
