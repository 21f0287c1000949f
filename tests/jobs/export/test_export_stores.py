"""Exports of stores in remote storage, of tars, and of what a trainer would not take."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import fsspec
import jobkit
import numpy as np
import pytest
import tarjobkit
import torch
from harness.made_up_stores import made, noise, write_store
from harness.s3 import needs_s3, s3_server
from picturekit import SIZE, pictured, tarred
from safetensors import safe_open
from safetensors.torch import load_file

from latentcli import open_store
from latentcli.core.errors import UsageError
from latentcli.images.buckets import make_buckets
from latentcli.images.preprocess import PreprocessSpec, geometry
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob


def export(store: object, out: Path, to: str = "kohya", **more) -> dict:
    return run_export(ExportJob(store=str(store), to=to, output=str(out), **more))


def test_names_from_tars_are_keys(tmp_path):
    document = export(tarred(tmp_path), tmp_path / "out")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in names(tmp_path))
    assert files == ["shard/a/one_0064x0064_sdxl.npz", "shard/two_0064x0064_sdxl.npz"]
    assert any("THE FOLDER OF PICTURES" in line for line in document["advice"])


def names(folder: Path) -> list[Path]:
    return list((folder / "out").rglob("*.npz"))


def test_ai_toolkit_needs_files(tmp_path):
    with pytest.raises(UsageError, match=r"tars or tables: unpack them"):
        export(tarred(tmp_path), tmp_path / "out", "ai-toolkit", force=True, arch="sdxl")


def test_shards_that_are_tars(tmp_path, encoded_tar):
    """A store of real tars, written by encode, in a format for any latents of its shape."""
    store, latents = encoded_tar
    document = export(store, tmp_path / "out", "comfyui", force=True, arch="flux2")
    assert document["forced"] and document["samples"] == len(latents)
    for path in (tmp_path / "out").glob("*.latent"):
        found = load_file(path)["latent_tensor"][0]
        assert torch.equal(found, latents[path.stem].float())


@pytest.fixture(scope="module")
def encoded_tar(tmp_path_factory):
    """A store of a tar whose shard is a tar, and its latents by the last part of their keys."""
    folder = tmp_path_factory.mktemp("tars")
    source = tarjobkit.make_tar(folder / "a.tar", tarjobkit.members(3, size=(64, 64)))
    more = {"shard_format": "webdataset", "samples_per_shard": None}
    jobkit.encode(source, folder / "store", "fcdm_nano", **more)
    store = open_store(str(folder / "store"))
    return folder / "store", {key.rpartition("/")[2]: store[key] for key in store}


@needs_s3
def test_a_store_in_remote_storage(tmp_path):
    local = pictured(tmp_path)
    whole = export(local, tmp_path / "here")
    with s3_server() as server:
        bucket = server.bucket()
        copy(local, f"{bucket}/s.latents")
        document = export(f"{bucket}/s.latents", tmp_path / "there")
        assert document["samples"] == whole["samples"] == 3
        checked = run_export(ExportJob(store=f"{bucket}/s.latents", check=str(tmp_path / "there")))
        assert checked["wrong"] == {}
        with pytest.raises(UsageError, match="folder of this machine"):
            run_export(ExportJob(store=f"{bucket}/s.latents", to="kohya", output=f"{bucket}/out"))
    for path in (tmp_path / "here").rglob("*.npz"):
        assert (tmp_path / "there" / path.relative_to(tmp_path / "here")).read_bytes() == (
            path.read_bytes()
        )


def copy(local: Path, url: str) -> None:
    """Uploads a folder."""
    files, _ = fsspec.core.url_to_fs(url)
    files.put(f"{local}/", f"{url.removeprefix('s3://')}/", recursive=True)


def test_two_resolutions_join_in_one_file(tmp_path):
    """sd-scripts keeps several in one archive; those of SD 1 and SDXL have room for one."""
    small = pictured(tmp_path / "small", space="flux1")
    one = made("cat", noise(16, 16, 16), original_size=(64, 64), source="/pictures/cat.png")
    size = {"resize": "crop", "size": [128, 128], "divisor": 8}
    large = write_store(tmp_path / "large.latents", [one], "flux1", preprocess=size)
    out = tmp_path / "out"
    export(small, out, arch="flux")
    with pytest.raises(UsageError, match="arch 'flux', not 'lumina'"):
        export(large, out, arch="lumina")
    export(large, out, arch="flux")
    keys = set(np.load(io.BytesIO((out / "cat_0064x0064_flux.npz").read_bytes())))
    assert {"latents_8x8", "latents_16x16"} <= keys
    # What the second store has not stays.
    assert (out / "sub" / "dog_0064x0064_flux.npz").is_file()
    assert run_export(ExportJob(store=str(large), check=str(out)))["wrong"] == {}


def test_files_with_room_for_one_size_are_not_joined(tmp_path):
    """sd-scripts finds nothing amiss in SDXL's latents of another size."""
    small, size = pictured(tmp_path / "small"), {"resize": "crop", "size": [128, 128], "divisor": 8}
    one = made("cat", noise(4, 16, 16), original_size=(64, 64), source="/pictures/cat.png")
    large = write_store(tmp_path / "large.latents", [one], preprocess=size)
    out = tmp_path / "out"
    export(small, out)
    with pytest.raises(UsageError, match=r"\(of another store, or of one made otherwise\)"):
        export(large, out)
    assert run_export(ExportJob(store=str(small), check=str(out)))["wrong"] == {}


def test_another_store_is_no_change_of_the_first(tmp_path):
    small = pictured(tmp_path / "small", space="flux1")
    one = made("cat", noise(16, 16, 16), original_size=(64, 64), source="/pictures/cat.png")
    size = {"resize": "crop", "size": [128, 128], "divisor": 8}
    large = write_store(tmp_path / "large.latents", [one], "flux1", preprocess=size)
    out = tmp_path / "out"
    export(small, out, "musubi", arch="z_image")
    before = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    with pytest.raises(UsageError, match="holds another export"):
        export(large, out, "musubi", arch="z_image")
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == before


@pytest.mark.parametrize(
    "to, names, suffixes, both",
    [
        ("kohya", ("a", "a"), (".jpg", ".png"), ("a.jpg", "a.png")),
        ("simpletuner", ("a", "a"), (".jpg", ".png"), ("a.jpg", "a.png")),
        ("musubi", ("x/a", "y/a"), (".png", ".png"), ("x/a", "y/a")),
        ("comfyui", ("x/a", "y/a"), (".png", ".png"), ("x/a", "y/a")),
    ],
)
def test_names_that_collide_are_refused_before_anything_is_written(
    to, names, suffixes, both, tmp_path
):
    space = {"musubi": "flux2"}.get(to, "sdxl")
    shape = (128, 4, 4) if space == "flux2" else (4, 8, 8)
    samples = [
        made(key, noise(*shape, seed=i), 64 // shape[-1], source=f"/p/{name}{suffix}")
        for i, (key, name, suffix) in enumerate(zip(both, names, suffixes, strict=True))
    ]
    store = write_store(tmp_path / "s.latents", samples, space, preprocess=SIZE)
    arch = {"musubi": "flux2_dev"}.get(to)
    with pytest.raises(UsageError) as caught:
        export(store, tmp_path / "out", to, arch=arch)
    assert all(repr(key) in str(caught.value) for key in both)
    assert "Nothing was written" in str(caught.value) and not (tmp_path / "out").exists()


def test_ai_toolkit_tells_suffixes_apart(tmp_path):
    samples = [
        made(f"a{suffix}", noise(4, 8, 8, seed=i), source=f"/p/a{suffix}")
        for i, suffix in enumerate((".jpg", ".png"))
    ]
    store = write_store(tmp_path / "s.latents", samples, "sdxl", preprocess=SIZE)
    # One size is not the trainer's own rule, which is not what this is about.
    export(store, tmp_path / "out", "ai-toolkit", force=True)
    assert len(list((tmp_path / "out" / "_latent_cache").glob("a_*.safetensors"))) == 2


def test_pictures_that_kohya_takes_for_others_are_told(tmp_path):
    store = pictured(tmp_path, ["cat2", "sub/dog"], lacking=["cat", "bird"])
    document = export(store, tmp_path / "out")
    assert document["samples"] == 2
    (warning,) = document["warnings"]
    assert "'cat' and 'cat2'" in warning and "bird" not in warning
    # Where pictures are linked, that of `cat` is not among them.
    assert export(store, tmp_path / "linked", link_images=True)["warnings"] == []
    beside = export(store, tmp_path / "pictures", link_images=True)
    assert beside["warnings"] == [warning]


@pytest.mark.parametrize("to, has_room", [("kohya", True), ("comfyui", False)])
def test_mirrored_latents_without_a_place_are_told(to, has_room, tmp_path):
    latent = noise(4, 8, 8)
    one = made("a", latent)
    one = replace(one, parts={"latent": latent, "latent_flip": latent.flip(-1)})
    flip = {"latents": {"flip": "both"}}
    store = write_store(tmp_path / "s.latents", [one], "sdxl", preprocess=SIZE, **flip)
    document = export(store, tmp_path / "out", to)
    assert bool(document["warnings"]) is not has_room
    if has_room:
        arrays = np.load(tmp_path / "out" / "a_0064x0064_sdxl.npz")
        expected = latent.flip(-1) * np.float32(1 / 0.13025)
        np.testing.assert_allclose(arrays["latents_flipped"], expected, rtol=1e-6)
        assert any("flip_aug = true" in line for line in document["advice"])
    else:
        assert "mirrored pictures are left out" in document["warnings"][0]


def test_an_older_cache_in_the_way(tmp_path):
    store = pictured(tmp_path)
    out = tmp_path / "pictures"
    (out / "cat.npz").write_bytes(b"old")
    with pytest.raises(UsageError, match=r"cat\.npz is there already"):
        export(store, out)
    assert not list(out.rglob("*_sdxl.npz"))
    export(store, out, force=True)
    assert len(list(out.rglob("*_sdxl.npz"))) == 3


def test_a_folder_that_musubi_cannot_search(tmp_path):
    store = pictured(tmp_path, space="flux2")
    out = tmp_path / "out[1]"
    with pytest.raises(UsageError, match="contains a wildcard character"):
        export(store, out, "musubi", arch="flux2_dev")
    assert not out.exists()


def test_what_was_forced_stands_in_the_files(tmp_path):
    store = pictured(tmp_path, space="sd1")
    with pytest.raises(UsageError, match="of the space sd1"):
        export(store, tmp_path / "out", "comfyui", arch="sdxl")
    document = export(store, tmp_path / "out", "comfyui", arch="sdxl", force=True)
    assert document["forced"]
    with safe_open(tmp_path / "out" / "cat.latent", "pt") as file:
        assert file.metadata()["latentcli_forced"] == "sd1#raw"


@pytest.mark.parametrize(
    "to, arch, space, size, problem",
    [
        ("musubi", "z_image", "flux1", (72, 64), "multiples of 16"),
        ("simpletuner", "flux1", "flux1", (128, 64), "to a square"),
        ("kohya", "flux", "flux1", None, "one --size or with --bucket-rule kohya"),
        ("musubi", "z_image", "flux1", None, "one --size or with --bucket-rule musubi"),
    ],
)
def test_sizes_that_the_trainer_would_not_compute(to, arch, space, size, problem, tmp_path):
    width, height = size or (64, 64)
    one = made("a", noise(16, height // 8, width // 8))
    known = {"resize": "crop", "size": [width, height], "divisor": 8}
    free = {"resize": "none", "size": None, "divisor": 8}
    store = write_store(tmp_path / "s.latents", [one], space, preprocess=known if size else free)
    with pytest.raises(UsageError, match=problem):
        export(store, tmp_path / "out", to, arch=arch)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rule, step, problem", [
    ("musubi", 32, "--bucket-step 16"),
    ("kohya", 64, "bucket rule kohya"),
    ("area", 64, "bucket rule area"),
])  # fmt: skip
def test_buckets_of_another_rule_or_step(rule, step, problem, tmp_path):
    buckets = make_buckets(rule, 256, step, 8).described()
    known = {"resize": "bucket", "size": None, "divisor": 8, "buckets": buckets}
    one = made("a", noise(16, 32, 32))
    store = write_store(tmp_path / "s.latents", [one], "flux1", preprocess=known)
    with pytest.raises(UsageError, match=problem):
        export(store, tmp_path / "out", "musubi", arch="z_image")


def bucketed(folder, rule, side, step, sizes, downscale=16, space="flux2"):
    """A store of pictures of these sizes by name, in the buckets of a rule, as encode makes it."""
    buckets = make_buckets(rule, side, step, downscale)
    spec = PreprocessSpec(None, downscale, buckets=buckets)
    samples = []
    for name, size in sorted(sizes.items()):
        resized, crop = geometry(size, spec)
        w, h = (crop[2] - crop[0]) // downscale, (crop[3] - crop[1]) // downscale
        channels = 128 if space == "flux2" else 4
        known = {"original_size": size, "resized_size": resized, "crop": crop}
        path = PurePosixPath(name)
        source = f"/p/{name}"
        key = str(path.with_suffix(""))
        samples.append(made(key, noise(channels, h, w), downscale, source=source, **known))
    sizing = {"resize": "bucket", "size": None, "divisor": downscale}
    sizing["buckets"] = buckets.described()
    return write_store(folder / "b.latents", samples, space, preprocess=sizing)


@pytest.mark.shared
def test_names_of_ai_toolkit_from_pictures_to_files(shared, tmp_path):
    """The rule of encode gives the numbers that the trainer hashes."""
    meta = json.loads((shared / "golden/trainers/ai_toolkit/flux2/meta.json").read_text())
    sizes = {row["image"]: tuple(row["image_size"]) for row in meta["samples"]}
    side, step = meta["resolution"], meta["divisibility"]
    store = bucketed(tmp_path, "ai-toolkit", side, step, sizes)
    document = export(store, tmp_path / "out", "ai-toolkit", arch="flux2")
    found = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*.safetensors")
    }
    assert found == {row["file"] for row in meta["samples"]}
    assert f"folder_path: /p, resolution: {side}, cache_latents_to_disk" in document["advice"][0]


@pytest.mark.shared
def test_names_of_musubi_from_pictures_to_files(shared, tmp_path):
    meta = json.loads((shared / "golden/trainers/musubi/flux2_dev/meta.json").read_text())
    sizes = {row["image"]: tuple(row["image_size"]) for row in meta["samples"]}
    store = bucketed(tmp_path, "musubi", tuple(meta["settings"]["resolution"]), None, sizes)
    export(store, tmp_path / "out", "musubi", arch="flux2_dev")
    for row in meta["samples"]:
        ((key, _, shape),) = row["keys"]
        assert list(load_file(tmp_path / "out" / row["file"])[key].shape) == shape


@pytest.mark.parametrize(
    "rule, kind", [("simpletuner", "pixel_area"), ("simpletuner-pixel", "pixel")]
)
def test_both_rules_of_simpletuner(rule, kind, tmp_path):
    sizes = {"a.png": (640, 480), "b.png": (300, 700)}
    store = bucketed(tmp_path, rule, 256, 64, sizes, downscale=8, space="sdxl")
    document = export(store, tmp_path / "out", "simpletuner")
    assert f'"resolution": 256, "resolution_type": "{kind}"' in document["advice"][0]
    assert '"instance_data_dir": "/p"' in document["advice"][0]
    with pytest.raises(UsageError, match="bucket rule simpletuner"):
        export(store, tmp_path / "other", "kohya")


def test_forced_sizes_and_options_without_use_are_told(tmp_path):
    store = bucketed(tmp_path, "area", 256, 64, {"a.png": (640, 480)}, downscale=8, space="sdxl")
    document = export(store, tmp_path / "out", force=True)
    assert "Forced: the trainer will compute other sizes" in document["warnings"][0]
    for more, problem in (
        ({"samples_per_file": 5}, "has files for each sample"),
        ({"labels": "colour"}, "holds no classes"),
    ):
        with pytest.raises(UsageError, match=problem):
            export(store, tmp_path / "out", force=True, **more)


def test_the_command_says_it_all(tmp_path):
    """The words of the summary, and the exit code of a refusal."""
    store, out = pictured(tmp_path), tmp_path / "out"
    done = jobkit.cli("export", store, "--to", "kohya", "-o", out)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert f"Exported 3 latents to {out}: kohya, sdxl, sdxl#raw, float32." in said
    assert "resolution = 64, enable_bucket = false" in said
    checked = jobkit.cli("export", store, "--check", out)
    assert checked.returncode == 0 and f"{out} matches {store}: " in checked.stdout + checked.stderr
    done = jobkit.cli("export", store, "--to", "musubi", "-o", out)
    assert done.returncode == 2 and "of the space sdxl" in done.stderr
