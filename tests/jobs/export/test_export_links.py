"""--link-images: pictures and captions where each trainer looks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness.made_up_stores import made, noise, write_store
from picturekit import NAMES, SIZE, picture, pictured, tarred

from latentcli.core.errors import UsageError
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob

PLACES = {
    "kohya": "{name}",
    "musubi": "images/{stem}",
    "simpletuner": "images/{name}",
    "ai-toolkit": "{name}",
}
BESIDE = {
    "kohya": "{name}_0064x0064_sdxl.npz",
    "simpletuner": "vae/{folder}*.pt",
    "musubi": "{stem}_0064x0064_f2d.safetensors",
    "ai-toolkit": "{folder}_latent_cache/{stem}_*.safetensors",
}
ARCH = {"musubi": ("flux2_dev", "flux2")}


def linked(store: Path, out: Path, name: str = "kohya", **more) -> dict:
    arch = ARCH.get(name, ("sdxl", "sdxl"))[0]
    # The rule of ai-toolkit's own buckets is not what this is about.
    force = name == "ai-toolkit"
    known = {"arch": arch, "output": str(out), "link_images": True, "force": force}
    return run_export(ExportJob(store=str(store), to=name, **(known | more)))


@pytest.mark.parametrize("name", PLACES)
def test_pictures_and_captions_lie_where_the_trainer_looks(name, tmp_path):
    store = pictured(tmp_path, space=ARCH.get(name, ("", "sdxl"))[1])
    out = tmp_path / "out"
    document = linked(store, out, name)
    for one in NAMES:
        parts = {"name": one, "stem": Path(one).name, "folder": f"{Path(one).parent}/"}
        parts["folder"] = parts["folder"].removeprefix("./")
        place = PLACES[name].format(**parts)
        link = out / f"{place}.png"
        assert link.is_symlink()
        assert link.resolve() == (tmp_path / "pictures" / f"{one}.png").resolve()
        assert (out / f"{place}.txt").read_text() == f"a picture of {one}"
        assert len(list(out.glob(BESIDE[name].format(**parts)))) == 1
    folder = {"musubi": out / "images", "simpletuner": out / "images"}.get(name, out)
    assert any(str(folder) in line for line in document["advice"])
    assert linked(store, out, name)["steps_done_before"] == 1


def test_pictures_of_an_export_that_had_none_are_linked_to_later(tmp_path):
    store, out = pictured(tmp_path), tmp_path / "out"
    linked(store, out, link_images=False)
    assert not (out / "cat.png").exists()
    linked(store, out)
    assert all((out / f"{name}.png").is_symlink() for name in NAMES)
    assert all((out / f"{name}.txt").is_file() for name in NAMES)
    assert linked(store, out)["steps_done_before"] == 1
    (out / "sub" / "dog.png").unlink()
    linked(store, out)
    assert (out / "sub" / "dog.png").is_symlink()


def test_advice_names_the_folder_of_the_pictures(tmp_path):
    store = pictured(tmp_path)
    job = ExportJob(store=str(store), to="kohya", output=str(tmp_path / "out"))
    advice = run_export(job)["advice"]
    assert f'image_dir = "{tmp_path / "pictures"}"' in advice[0]
    assert "--link-images" in advice[1]
    beside = ExportJob(store=str(store), to="kohya", output=str(tmp_path / "pictures"))
    assert not any("--link-images" in line for line in run_export(beside)["advice"])


def test_blank_captions_have_no_file(tmp_path):
    """sd-scripts ends at a caption file without a line."""
    captions = {"cat": "", "sub/dog": " \n\t", "sub/deep/bird": "a bird\nsecond line"}
    linked(pictured(tmp_path, captions=captions), tmp_path / "out")
    texts = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.txt")]
    assert [str(path) for path in texts] == ["sub/deep/bird.txt"]
    assert (tmp_path / "out" / texts[0]).read_text() == "a bird\nsecond line"


def test_links_that_lead_elsewhere_are_replaced(tmp_path):
    store, out = pictured(tmp_path), tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "cat.png").symlink_to(picture(tmp_path / "other.png"))
    (out / "sub" / "dog.png").symlink_to(tmp_path / "nowhere.png")
    linked(store, out)
    for name in ("cat", "sub/dog"):
        assert (out / f"{name}.png").resolve() == (tmp_path / "pictures" / f"{name}.png").resolve()
    assert (tmp_path / "other.png").exists()


def test_a_file_in_the_way_is_named_before_anything_is_written(tmp_path):
    store, out = pictured(tmp_path), tmp_path / "out"
    mine = picture(out / "sub" / "dog.png")
    before = mine.read_bytes()
    with pytest.raises(UsageError, match=r"dog\.png exists and is not a link"):
        linked(store, out)
    assert [path for path in out.rglob("*") if path.is_file()] == [mine]
    assert mine.read_bytes() == before


def test_a_missing_picture_is_named_before_anything_is_written(tmp_path):
    store = pictured(tmp_path)
    (tmp_path / "pictures" / "sub" / "dog.png").unlink()
    with pytest.raises(UsageError, match=r"dog\.png is no longer there"):
        linked(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert linked(store, tmp_path / "out", link_images=False)["samples"] == 3


def test_in_the_folder_of_the_pictures_captions_stay_as_their_owner_has_them(tmp_path):
    store, pictures = pictured(tmp_path), tmp_path / "pictures"
    (pictures / "cat.txt").write_text("my own words")
    linked(store, pictures)
    assert (pictures / "cat.txt").read_text() == "my own words"
    assert (pictures / "sub" / "dog.txt").read_text() == "a picture of sub/dog"
    assert not (pictures / "cat.png").is_symlink() and (pictures / "cat.png").is_file()
    assert (pictures / "cat_0064x0064_sdxl.npz").is_file()
    # Those that we wrote follow the store, and go with their pictures.
    shutil.rmtree(store)
    captions = {"cat": "other words", "sub/deep/bird": "a bird"}
    linked(pictured(tmp_path, ["cat", "sub/deep/bird"], captions=captions), pictures)
    assert (pictures / "cat.txt").read_text() == "my own words"
    assert not (pictures / "sub" / "dog.txt").exists()
    assert (pictures / "sub" / "deep" / "bird.txt").read_text() == "a bird"


def test_trainers_that_need_no_pictures_get_none(tmp_path):
    with pytest.raises(UsageError, match="need no pictures"):
        linked(pictured(tmp_path), tmp_path / "out", "comfyui")


def test_pictures_in_tars_cannot_be_linked(tmp_path):
    with pytest.raises(UsageError, match="in tars or tables"):
        linked(tarred(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_elsewhere_cannot_be_linked(tmp_path):
    one = made("a", noise(4, 8, 8), source="s3://bucket/a.png")
    store = write_store(tmp_path / "s.latents", [one], "sdxl", preprocess=SIZE)
    with pytest.raises(UsageError, match="in remote storage"):
        linked(store, tmp_path / "out")


def test_ai_toolkit_refuses_one_size(tmp_path):
    with pytest.raises(UsageError, match="--bucket-rule ai-toolkit"):
        linked(pictured(tmp_path), tmp_path / "out", "ai-toolkit", force=False)
