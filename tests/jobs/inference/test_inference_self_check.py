"""The self-check lets sound models pass and stops a job that would write a wrong cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import changed_model, encode, toy_pictures, tree
from PIL import Image
from safetensors.torch import load_file, save_file

from latentcli import open_store
from latentcli.core.errors import SelfCheckError
from latentcli.jobs.inference.engine import decode_batch, load_engine
from latentcli.jobs.inference.self_check import MAX_SIDE, describe, finite_median, judge, middle
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.metrics.psnr import psnr

State = dict[str, torch.Tensor]


def bundled_folder() -> str:
    from latentcli.models.pretrained import BUNDLED

    return str(BUNDLED / "fcdm_nano")


def check(photographs: Path, store: Path, weights: str | None, **options: object) -> dict:
    return encode(
        photographs, store, "fcdm_nano", weights=weights, self_check=True, size="128", **options
    )


def test_the_bundled_model_passes(bundled, photographs, tmp_path):
    found = check(photographs, tmp_path / "store", None)
    figures = found["self_check"]
    assert figures["finite"] and figures["psnr_median"] > figures["psnr_floor"] > 10
    assert 0.25 < figures["latent_rms"] < 4 and abs(figures["latent_mean"]) < 1.5
    assert len(figures["keys"]) == len(figures["psnr"]) == 4
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["self_check"] == figures


def poison(state: State) -> None:
    state["encoder.to_bottleneck.weight"][0] = float("nan")


def overflow(state: State) -> None:
    state["encoder.to_bottleneck.weight"].mul_(1e38)


def wrong_variance(state: State) -> None:
    state["latent_norm_running_var"].mul_(100)


def tiny_variance(state: State) -> None:
    state["latent_norm_running_var"].mul_(0.001)


def wrong_mean(state: State) -> None:
    state["latent_norm_running_mean"].add_(10)


def shuffled(state: State) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if tensor.ndim > 1 and name.startswith("decoder."):
            order = torch.randperm(tensor.numel(), generator=generator)
            state[name] = tensor.flatten()[order].reshape(tensor.shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (poison, "NaN or infinite"),
        (overflow, "NaN or infinite|the latents"),
        (wrong_variance, "whitening statistics.*do not belong"),
        (tiny_variance, "whitening statistics.*do not belong"),
        (wrong_mean, "whitening statistics.*do not belong"),
        (shuffled, "dB PSNR"),
    ],
)
def test_wrong_weights_write_no_shard(bundled, photographs, tmp_path, change, words):
    weights = changed_model(bundled_folder(), tmp_path / "weights", change)
    store = tmp_path / "store"
    with pytest.raises(SelfCheckError, match=words) as caught:
        check(photographs, store, weights)
    assert caught.value.exit_code == 1
    assert "fcdm_nano" in str(caught.value) and "--" in str(caught.value)
    assert not list((store / "shards").iterdir())
    assert json.loads((store / "manifest.json").read_text())["status"] == "running"


def test_it_can_be_turned_off(bundled, photographs, tmp_path):
    weights = changed_model(bundled_folder(), tmp_path / "weights", shuffled)
    options = {"weights": weights, "size": "64", "self_check": False}
    found = encode(photographs, tmp_path / "store", "fcdm_nano", **options)
    assert found["encoded"] >= 4 and found["self_check"] is None


def test_after_a_failed_check_the_job_can_be_run_without(bundled, photographs, tmp_path):
    weights = changed_model(bundled_folder(), tmp_path / "weights", shuffled)
    with pytest.raises(SelfCheckError):
        check(photographs, tmp_path / "store", weights)
    options = {"weights": weights, "size": "128"}
    found = encode(photographs, tmp_path / "store", "fcdm_nano", **options)
    assert found["encoded"] >= 4


def test_it_runs_once_and_the_figures_stay(bundled, photographs, tmp_path):
    store = tmp_path / "store"
    check(photographs, store, None)
    before = tree(store)
    check(photographs, store, None)
    assert tree(store) == before


def test_a_preset_from_a_file_of_ones_own(tmp_path):
    """The floor is that of the preset that was loaded, also where the package has none such."""
    from latentcli.models.fcdm import FAMILY
    from latentcli.models.registry import build_model

    config = "\n".join(f"{name} = {value!r}" for name, value in FAMILY.tiny.items())
    (tmp_path / "mine.toml").write_text(
        'family = "fcdm"\nsummary = "toy"\nlicence = "none"\ncard = "none"\n'
        f'[config]\n{config}\n[weights]\nrepo = "nobody/nothing"\n'
        '[latents]\nspace = "mine"\nchannels = 8\ndownscale = 16\nsize_divisor = 16\n'
        "[self_check]\npsnr_floor = 60.0\n"
    )
    state = build_model(tmp_path / "mine.toml").state_dict()
    save_file(state, tmp_path / "toy.safetensors")
    options = {"weights": str(tmp_path / "toy.safetensors"), "self_check": True}
    pictures = toy_pictures(tmp_path / "pictures", 3, [(64, 64)])
    with pytest.raises(SelfCheckError, match=r"more than 60 dB"):
        encode(pictures, tmp_path / "store", str(tmp_path / "mine.toml"), **options)


@pytest.mark.parametrize("state", ["whitened", "raw", "moments"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp8", "int8"])
def test_its_figures_are_those_of_what_the_store_holds(bundled, tmp_path, state, dtype):
    """Latents and PSNR to the last digit, which no other dtype gives."""
    pictures = toy_pictures(tmp_path / "pictures", 4, [(64, 64)])
    # Alone, as the self-check encodes them: in a batch the last bits may be others.
    options = {"latents": state, "store_dtype": dtype, "self_check": True, "batch_size": 1}
    found = encode(pictures, tmp_path / "store", bundled, **options)["self_check"]
    store, engine = open_store(tmp_path / "store"), load_engine(bundled, device="cpu")
    held, psnrs = [], []
    for key in found["keys"]:
        latent = store.in_state(store[key], "whitened")[None]
        held.append(latent[0].flatten(1))
        (path,) = pictures.rglob(f"{Path(key).name}.*")
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        decoded = decode_batch(engine, latent, [key], DecodeSettings())
        psnrs.append(psnr(pixels, decoded).item())
    expected = describe(torch.cat(held, dim=1), psnrs, found["keys"])
    assert expected == {name: found[name] for name in expected}


def figures(**changes: object) -> dict:
    good = {"finite": True, "latent_rms": 1.0, "latent_mean": 0.0, "psnr_median": 30.0}
    good |= {"channel_mean_max": 1.0, "channel_std_max": 1.5}
    return good | {"keys": ["a", "b"]} | changes


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"finite": False}, "NaN"),
        ({"latent_rms": 0.2}, "RMS 0.2"),
        ({"latent_rms": 4.1}, "RMS 4.1"),
        ({"latent_mean": -1.6}, "mean -1.6"),
        ({"channel_mean_max": 8.1}, "mean 8.1"),
        ({"channel_std_max": 8.1}, "standard deviation 8.1"),
        ({"psnr_median": 17.9}, "17.9 dB"),
    ],
)
def test_each_figure_has_its_range(changes, word):
    judge(figures(), 18.0, "m")
    with pytest.raises(SelfCheckError, match=word):
        judge(figures(**changes), 18.0, "m")


def test_what_fp16_cannot_hold_can_be_stored_otherwise():
    with pytest.raises(SelfCheckError, match="try --dtype fp32, or --store-dtype bf16"):
        judge(figures(finite=False), 18.0, "m", "fp16")
    with pytest.raises(SelfCheckError, match=r"try --dtype fp32\.$"):
        judge(figures(finite=False), 18.0, "m", "int8")


def test_what_cannot_be_judged_passes():
    judge(figures(psnr_median=None), 18.0, "m")
    poor = figures(psnr_median=3.0)
    judge(poor, None, "m")
    with pytest.raises(SelfCheckError, match=r"3\.0 dB"):
        judge(poor, 18.0, "m")


def test_description():
    latents = torch.tensor([[1.0, -1.0, 1.0, -1.0], [2.0, 2.0, 2.0, 2.0]])
    found = describe(latents, [30.0, float("inf"), 20.0], ["a", "b", "c"])
    assert found["latent_rms"] == pytest.approx(2.5**0.5, abs=1e-3)
    assert (found["latent_mean"], found["psnr_median"]) == (1.0, 30.0)
    assert (found["channel_std_min"], found["channel_std_max"]) == (0.0, 1.0)
    assert found["psnr"] == [30.0, None, 20.0]
    json.dumps(found, allow_nan=False)
    assert describe(torch.full((1, 2), float("nan")), [], ["a"])["finite"] is False
    assert finite_median([]) is None and finite_median([float("inf")]) is None


@pytest.mark.parametrize(
    ("shape", "divisor", "expected"),
    [
        ((64, 96), 32, (64, 96)),
        ((2000, 48), 16, (MAX_SIDE, 48)),
        ((1024, 2048), 1024, (1024, 1024)),
        ((672, 672), 96, (480, 480)),
    ],
)
def test_only_the_middle_is_checked(shape, divisor, expected):
    picture = torch.zeros(3, *shape, dtype=torch.uint8)
    picture[:, shape[0] // 2, shape[1] // 2] = 1
    cut = middle(picture, divisor)
    assert tuple(cut.shape[1:]) == expected
    assert cut[0, expected[0] // 2, expected[1] // 2] == 1


def test_weights_survive_the_helpers(bundled, tmp_path):
    """The helpers above change what they say and nothing else."""
    copy = changed_model(bundled_folder(), tmp_path / "copy", lambda state: None)
    left, right = (load_file(Path(f) / "model.safetensors") for f in (bundled_folder(), copy))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
