"""Every preset through a store and back, with toy weights: pictures and clips; and the refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import clip_files
from jobkit import cli, decode, encode, latents_of, pictures_of
from PIL import Image
from presetkit import TOY_WIDTHS, toy_checkpoint
from safetensors.torch import load_file, save_file

import latentcli
from latentcli.core.errors import UsageError, WeightsError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.models.presets import load_preset, preset_names

PRESETS = [load_preset(name) for name in preset_names()]
BOTH = [preset.name for preset in PRESETS if preset.can_encode and preset.can_decode]
DECODERS = [preset.name for preset in PRESETS if not preset.can_encode]
ENCODER_OF = {"flux2": "flux2", "sdxl": "sdxl", "svd": "svd"}
"""Latent space to a preset that encodes into it."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A toy checkpoint of every preset but those that are bundled."""
    root = tmp_path_factory.mktemp("weights")
    for preset in PRESETS:
        if preset.bundled is None:
            toy_checkpoint(root, preset.name)
    return root


@pytest.fixture(autouse=True)
def found(weights, monkeypatch):
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(weights))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three pictures of two sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate([(64, 64), (96, 64), (64, 64)]):
        pixels = clip_files.numbered(number + 5, *size)
        Image.fromarray(pixels).save(folder / f"p{number}.png")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clip_files.make_clip(tmp_path_factory.mktemp("clip") / "c.mp4", 5, size=(64, 64))


def test_every_family_has_a_toy_width():
    assert {preset.family for preset in PRESETS} == set(TOY_WIDTHS)


@pytest.mark.parametrize("name", BOTH)
def test_pictures_through_a_store(name, photos, tmp_path):
    preset = load_preset(name)
    told = encode(photos, tmp_path / "store", name)
    assert (told["encoded"], told["failed"]) == (3, 0)
    assert told["latent_space"] == preset.spec.space_id(preset.state)
    shapes = {key: tuple(latent.shape) for key, latent in latents_of(tmp_path / "store").items()}
    f, c = preset.downscale, preset.channels
    assert shapes["p1/latent"] == (c, 64 // f, 96 // f)
    back = decode(tmp_path / "store", tmp_path / "out")
    assert (back["decoded"], back["model"]) == (3, name)
    assert pictures_of(tmp_path / "out")["p1"].shape == (64, 96, 3)


@pytest.mark.parametrize("name", BOTH)
def test_clips_through_a_store(name, clip, tmp_path):
    preset = load_preset(name)
    told = encode(clip, tmp_path / "store", name)
    assert (told["encoded"], told["frames"], told["media"]) == (1, 5, "clips")
    latent = latents_of(tmp_path / "store")["c/latent"]
    side = 64 // preset.downscale
    assert tuple(latent.shape) == (5, preset.channels, side, side)
    back = decode(tmp_path / "store", tmp_path / "out", format="png")
    assert (back["decoded"], back["frames"]) == (1, 5)
    assert len(pictures_of(tmp_path / "out" / "c")) == 5


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("state", ["raw", "moments"])
def test_other_states_come_back_as_the_models_own_do(name, state, photos, tmp_path):
    if state == "moments" and load_preset(name).family in ("tiny", "linear"):
        with pytest.raises(
            UsageError, match=f"{name} has a deterministic encoder.*--latents moments"
        ):
            encode(photos, tmp_path / "store", name, latents=state)
        return
    encode(photos, tmp_path / "own", name)
    encode(photos, tmp_path / "other", name, latents=state)
    decode(tmp_path / "own", tmp_path / "a")
    decode(tmp_path / "other", tmp_path / "b")
    want, got = pictures_of(tmp_path / "a"), pictures_of(tmp_path / "b")
    # Both stores are rounded to bfloat16, but not at the same point.
    for key, picture in want.items():
        assert abs(picture.astype(int) - got[key].astype(int)).mean() < 1.5


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_refuse_to_encode_and_decode_their_own_space(name, photos, clip, tmp_path):
    preset = load_preset(name)
    able = ENCODER_OF[preset.space]
    with pytest.raises(UsageError, match=rf"^{name} has only a decoder.*{able}.* can[^.]*\.$"):
        encode(photos, tmp_path / "none", name)
    for source, store in ((photos, tmp_path / "p"), (clip, tmp_path / "c")):
        encode(source, store, able)
        told = decode(store, tmp_path / "out" / store.name, model=name, format="png")
        assert (told["model"], told["failed"]) == (name, 0)
    assert pictures_of(tmp_path / "out" / "p")["p1"].shape == (64, 96, 3)
    assert len(pictures_of(tmp_path / "out" / "c" / "c")) == 5


def test_halves_in_files_of_their_own(weights, photos, tmp_path):
    whole = load_file(weights / "taesd" / "diffusion_pytorch_model.safetensors")
    halves = {}
    for half in ("encoder", "decoder"):
        folder = tmp_path / half
        folder.mkdir()
        config = (weights / "taesd" / "config.json").read_text()
        (folder / "config.json").write_text(config)
        halves[half] = folder / "diffusion_pytorch_model.safetensors"
        part = {name: tensor for name, tensor in whole.items() if name.startswith(half)}
        save_file(part, halves[half])
    encode(photos, tmp_path / "store", "taesd", weights=str(halves["encoder"]))
    found = decode(tmp_path / "store", tmp_path / "out", weights=str(halves["decoder"]))
    assert found["decoded"] == 3
    with pytest.raises(UsageError, match="hold only an encoder, so they cannot decode"):
        decode(tmp_path / "store", tmp_path / "no", weights=str(halves["encoder"]))
    with pytest.raises(UsageError, match=r"taesd .* hold only a decoder, so they cannot encode"):
        encode(photos, tmp_path / "no", "taesd", weights=str(halves["decoder"]))


def test_spaces_do_not_mix_although_their_shapes_are_equal(photos, tmp_path):
    encode(photos, tmp_path / "store", "full_capacitor")
    both = "data-archetype/full_capacitor#whitened.*flux2#whitened"
    with pytest.raises(UsageError, match=both):
        decode(tmp_path / "store", tmp_path / "out", model="taef2")
    with pytest.raises(UsageError, match=both):
        roundtrip(photos, "full_capacitor", "flux2")
    assert decode(tmp_path / "store", tmp_path / "out", model="taef2", force=True)["decoded"] == 3


def test_a_store_says_which_moments_it_holds(photos, tmp_path):
    encode(photos, tmp_path / "store", "sdxl", latents="moments")
    store = latentcli.open_store(tmp_path / "store")
    assert set(store.parts("p0")) == {"mean", "logvar"}
    sample = latentcli.LatentDataset(tmp_path / "store", sample=True)
    assert not torch.equal(sample[0]["latent"], sample[0]["latent"])


@pytest.mark.parametrize(("name", "wrong"), [("sdxl", "whitened"), ("full_capacitor", "scaled")])
def test_a_models_own_latents_have_one_name(name, wrong, photos, tmp_path):
    with pytest.raises(UsageError, match=f"--latents is '{wrong}', but the latents of {name} are"):
        encode(photos, tmp_path / "store", name, latents=wrong)


def test_class_tokens_are_stored_beside_latents(photos, clip, tmp_path):
    encode(photos, tmp_path / "plain", "dinac_ae_d2")
    encode(photos, tmp_path / "store", "dinac_ae_d2", class_token=True)
    found, plain = latents_of(tmp_path / "store"), latents_of(tmp_path / "plain")
    tokens = {name: part for name, part in found.items() if name.endswith("/class_token")}
    assert len(tokens) == 3
    assert all(t.shape == (768,) and t.dtype is torch.float32 for t in tokens.values())
    assert len({t.sum().item() for t in tokens.values()}) == 3
    assert all(torch.equal(found[name], latent) for name, latent in plain.items())
    model = latentcli.load_model("dinac_ae_d2")
    pixels = torch.from_numpy(clip_files.numbered(6, 96, 64)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        own = model.predict_class(model.encode(pixels.float() / 127.5 - 1))[0]
    assert (tokens["p1/class_token"] - own).abs().max() < 0.05
    item = latentcli.LatentDataset(tmp_path / "store")[1]
    assert torch.equal(item["class_token"], tokens["p1/class_token"])
    assert decode(tmp_path / "store", tmp_path / "out")["decoded"] == 3
    encode(clip, tmp_path / "clips", "dinac_ae_d2", class_token=True)
    assert latents_of(tmp_path / "clips")["c/class_token"].shape == (5, 768)


def test_class_tokens_need_a_model_that_predicts_them(photos, tmp_path):
    with pytest.raises(UsageError, match=r"full_capacitor predicts no class token.*dinac_ae"):
        encode(photos, tmp_path / "store", "full_capacitor", class_token=True)


def roundtrip(photos: Path, model: str, *decoders: str, **options):
    settings = {"sources": (str(photos),), "device": "cpu", "workers": 0}
    job = RoundtripJob(models=(model,), decoders=decoders, **settings | options)
    return run_roundtrip(job)


def test_one_encoding_is_decoded_by_every_model_of_its_space(photos, tmp_path):
    told = roundtrip(photos, "flux2", "capacitor_decoder", "taef2", save=str(tmp_path / "out"))
    names = [row["model"] for row in told["models"]]
    assert names == ["flux2", "flux2-capacitor_decoder", "flux2-taef2"]
    assert [row["against"] for row in told["delta"]] == ["flux2", "flux2"]
    assert told["stages"]["encode"]["items"] == 3 and told["stages"]["decode"]["items"] == 9
    encode(photos, tmp_path / "store", "flux2", batch_size=8)
    decode(tmp_path / "store", tmp_path / "alone", model="capacitor_decoder")
    want = pictures_of(tmp_path / "alone")
    got = pictures_of(tmp_path / "out" / "flux2-capacitor_decoder")
    assert all((abs(want[k].astype(int) - got[k].astype(int)) <= 1).all() for k in want)


def test_a_revision_is_the_models_and_not_its_decoders(weights, photos, tmp_path, monkeypatch):
    cached = tmp_path / "models--madebyollin--taef2"
    (cached / "snapshots").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "snapshots" / ("1" * 40)).symlink_to(weights / "taef2")
    (cached / "refs" / "v9").write_text("1" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    told = roundtrip(photos, "taef2", "capacitor_decoder", revision="v9")
    assert [row["model"] for row in told["models"]] == ["taef2", "taef2-capacitor_decoder"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ("flux2", "taef2"), "decoders": ("capacitor_decoder",)}, "give one --model"),
        ({"models": ("flux2",), "decoders": ("flux2",)}, "have the same name"),
        ({"models": ("flux2",), "decoders": ("taesdxl",)}, "flux2#whitened.*sdxl#scaled"),
        ({"models": ("capacitor_decoder",), "decoders": ("taef2",)}, "cannot encode"),
    ],
)
def test_pairs_that_make_no_sense(photos, options, words):
    with pytest.raises(UsageError, match=words):
        run_roundtrip(RoundtripJob(sources=(str(photos),), device="cpu", workers=0, **options))


def test_a_decoder_may_come_with_its_weights(photos, weights, tmp_path, monkeypatch):
    want = roundtrip(photos, "sdxl", "tae192")["models"][1]
    path = weights / "tae192" / "ex_v6.pth"
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path))
    sdxl = str(weights / "sdxl")
    toy = str(tmp_path / "toy.pth")
    Path(toy).symlink_to(path)
    with pytest.raises(WeightsError, match=r"write --decoder tae192=PATH instead of"):
        roundtrip(photos, "sdxl", "tae192", weights=sdxl)
    # A lone file comes without the toy's config.json, so it is of the wrong width.
    with pytest.raises(WeightsError, match="do not fit the network"):
        roundtrip(photos, "sdxl", f"tae192={toy}", weights=sdxl)
    got = roundtrip(photos, "sdxl", f"tae192={weights / 'tae192'}", weights=sdxl)["models"][1]
    assert got["model"] == "sdxl-tae192" and got["psnr"] == want["psnr"]


def test_a_file_of_latents_is_not_taken_for_another_kind(tmp_path):
    save_file({"a": torch.zeros(4, 8, 8)}, tmp_path / "z.safetensors")
    words = "--latents is 'whitened', but the latents of taesdxl are scaled"
    with pytest.raises(UsageError, match=words):
        decode(tmp_path / "z.safetensors", tmp_path / "out", model="taesdxl", latents="whitened")
    assert decode(tmp_path / "z.safetensors", tmp_path / "out", model="taesdxl")["decoded"] == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_a_file_that_is_named_after_another_model_is_told_unless_quiet(quiet, photos, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "taesdxl.pth")
    words = ["encode", photos, "--model", "taesd", "--weights", tmp_path / "taesdxl.pth"]
    told = cli(*words, "-o", tmp_path / "store", *(["--quiet"] if quiet else []))
    assert told.returncode == 1 and "do not fit the network" in told.stderr
    assert ("is named as the weights of taesdxl are" in told.stderr) is not quiet
