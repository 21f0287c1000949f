"""The report of a store: figures that numpy agrees with, and what is wrong named in the page."""

from __future__ import annotations

import gc
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from encodekit import pictures
from jobkit import encode, latents_of
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.store.damaged_reader import ReadableStore, spread
from latentcli.jobs.store.expected import reference_of, running_statistics
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.latent_store import open_store

SIZES = [(64, 64), (96, 48), (48, 96)]
LINEAR = "linear16"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """11 pictures of three sizes, of which two are cut short."""
    return pictures(tmp_path_factory.mktemp("photos") / "in", (SIZES * 4)[:11], bad=(4, 7))


@pytest.fixture(scope="module")
def linear_store(tmp_path_factory, photos):
    store = tmp_path_factory.mktemp("linear") / "store"
    encode(photos, store, LINEAR)
    return store


def report_of(store: object, folder: Path, **options: object) -> dict:
    document = inspect_store(str(store), str(folder / "report"), **options)
    json.dumps(document)
    return document["report"]


def page_of(report: dict) -> str:
    return Path(report["path"]).read_text(encoding="utf-8")


def change(store: Path, copy: Path, edit) -> Path:
    """A copy of a store with every latent changed in place, in shards written anew."""
    shutil.copytree(store, copy)
    for shard in sorted((copy / "shards").glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(shard)
        for name, tensor in tensors.items():
            edit(name, tensor)
        save_file(tensors, shard, metadata)
    return copy


def kinds(report: dict) -> set[tuple[str, int | None]]:
    return {(item["kind"], item["channel"]) for item in report["findings"]}


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
def test_figures_are_those_of_the_tensors(tmp_path, photos, form):
    store = tmp_path / "store"
    encode(photos, store, LINEAR, shard_format=form)
    report = report_of(store, tmp_path)
    opened = open_store(str(store))
    samples = {key: opened[key].double().numpy() for key in opened}
    values = np.concatenate([v.reshape(len(v), -1) for v in samples.values()], axis=1)
    assert report["samples_read"] == report["samples"] == len(samples) == 9
    np.testing.assert_allclose(report["channels"]["mean"], values.mean(1), atol=1e-12)
    np.testing.assert_allclose(report["channels"]["std"], values.std(1), rtol=1e-9)
    assert report["channels"]["min"] == values.min(1).tolist()
    assert report["channels"]["max"] == values.max(1).tolist()
    np.testing.assert_allclose(report["values"]["std"], values.std(), rtol=1e-9)
    drawn = report["histogram"]
    inside = values[(values >= drawn["low"]) & (values < drawn["high"])]
    counted, _ = np.histogram(inside, len(drawn["counts"]), (drawn["low"], drawn["high"]))
    assert drawn["counts"] == counted.tolist()
    assert drawn["below"] + drawn["above"] == values.size - inside.size
    rms = {key: float(np.sqrt((v**2).mean())) for key, v in samples.items()}
    assert report["extremes"]["highest"][0]["key"] == max(rms, key=rms.__getitem__)
    assert report["extremes"]["lowest"][0]["rms"] == pytest.approx(min(rms.values()))
    assert report["recorded"]["mean"] == pytest.approx(report["channels"]["mean"], abs=1e-9)
    assert "record" not in {kind for kind, _ in kinds(report)}


def test_sizes_failures_and_shards_are_counted(tmp_path, linear_store):
    report = report_of(linear_store, tmp_path)
    assert {tuple(i["pixels"]): i["count"] for i in report["buckets"]["items"]} == {
        (64, 64): 4,
        (96, 48): 2,
        (48, 96): 3,
    }
    assert {tuple(i["latent"]) for i in report["buckets"]["items"]} == {(4, 4), (6, 3), (3, 6)}
    assert sum(item["count"] for item in report["failures"]) == 2
    assert {key for item in report["failures"] for key in item["keys"]} == {"0004", "0007"}
    sizes = [path.stat().st_size for path in (linear_store / "shards").glob("*.safetensors")]
    assert report["shards"]["bytes"] == sum(sizes) and report["shards"]["count"] == 3
    page = page_of(report)
    assert "96 x 48" in page and "decode_image" in page and "0004" in page


def test_pictures_are_of_the_latents(tmp_path, linear_store):
    told = report_of(linear_store, tmp_path)["thumbnails"]
    assert [item["key"] for item in told["items"]] == list(open_store(str(linear_store)))
    assert 0 < told["explained"] <= 1 and told["fitted"] == 9
    for item in told["items"]:
        with Image.open(tmp_path / "report" / item["file"]) as image:
            assert list(image.size) == item["size"] and image.mode == "RGB"
    assert told["items"][0]["file"] == "files/000/000000.pca.png"
    assert len(list((tmp_path / "report" / "files").rglob("*.png"))) == 9


def test_the_same_store_gives_the_same_report(tmp_path, linear_store):
    def files() -> dict[str, bytes]:
        report_of(linear_store, tmp_path)
        folder = tmp_path / "report"
        return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert files() == files()


def test_what_is_wrong_with_channels_is_flagged(tmp_path, linear_store):
    def spoil(name: str, tensor: torch.Tensor) -> None:
        tensor[3] = 0.5
        tensor[20] += 4
        tensor[50] *= 30
        if name.startswith("0002/"):
            tensor[9, 0, 0], tensor[11, 1, 1] = float("nan"), float("inf")

    report = report_of(change(linear_store, tmp_path / "bad", spoil), tmp_path)
    assert {("dead", 3), ("shifted", 20), ("wide", 50), ("not_finite", 9), ("not_finite", 11)} <= (
        kinds(report)
    )
    assert report["spoiled"] == 1 and report["samples_read"] == 9
    assert report["values"]["nan"] == 1 and report["values"]["infinite"] == 1
    assert report["channels"]["not_finite"][9] == 1
    assert np.isfinite(report["channels"]["mean"]).all()
    page = page_of(report)
    assert "Channel 3 has a standard deviation of 0 instead of about 1: it is dead." in page
    assert len(report["thumbnails"]["items"]) == 9


def test_latents_that_are_not_those_written_are_found(tmp_path, linear_store):
    def shift(name: str, tensor: torch.Tensor) -> None:
        tensor[5] += 0.125

    report = report_of(change(linear_store, tmp_path / "other", shift), tmp_path)
    assert "record" in {kind for kind, _ in kinds(report)}


def test_damaged_shards_are_named(tmp_path, linear_store):
    store = tmp_path / "store"
    shutil.copytree(linear_store, store)
    shard = store / "shards" / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    (store / "shards" / "000002.json").write_text("{")
    found = inspect_store(str(store))
    problems = " ".join(found["damaged"]["problems"])
    assert found["damaged"]["count"] == 2
    assert "000001.safetensors is damaged" in problems and "000002.json" in problems
    # 9 latents in units of 4, 2 and 3; the record of the last one does not tell what was there.
    assert (found["encoded"], found["missing"]) == (4, 3)
    assert "same encode command" in found["advice"]
    report = report_of(store, tmp_path)
    assert report["damaged"]["count"] == 2 and ("damage", None) in kinds(report)
    assert report["samples"] == report["samples_read"] == 4
    page = page_of(report)
    assert "000001.safetensors is damaged" in page and "000002.json" in page


def test_an_unfinished_store_and_one_of_failures(tmp_path, linear_store):
    store = tmp_path / "store"
    shutil.copytree(linear_store, store)
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(
        json.dumps(manifest | {"status": "running", "channels": None})
    )
    (store / "shards" / "000002.json").unlink()
    report = report_of(store, tmp_path)
    assert report["samples"] == 6 and report["recorded"] is not None
    assert ("running", None) in kinds(report) and ("missing", None) not in kinds(report)
    assert "The job is not finished" in page_of(report)
    broken = pictures(tmp_path / "broken", SIZES, bad=(0, 1, 2))
    encode(broken, tmp_path / "failed", LINEAR)
    report = report_of(tmp_path / "failed", tmp_path)
    assert report["samples"] == 0 and kinds(report) == {("empty", None), ("failed", None)}
    assert "3 of 3 inputs failed (100%)" in page_of(report)
    assert "The store has no latent that can be read." in page_of(report)


def test_a_commit_record_that_is_gone_is_missed(tmp_path, linear_store):
    store = tmp_path / "store"
    shutil.copytree(linear_store, store)
    assert "missing" not in {kind for kind, _ in kinds(report_of(store, tmp_path))}
    record = store / "shards" / "000001.json"
    inputs = len(json.loads(record.read_text())["rows"])
    record.unlink()
    report = report_of(store, tmp_path)
    assert ("missing", None) in kinds(report)
    assert f"{inputs} of the 11 inputs that the manifest counts are in no commit" in page_of(report)


def test_mirrored_latents_are_not_measured_and_that_is_said(tmp_path, photos, linear_store):
    encode(photos, tmp_path / "both", LINEAR, flip="both")
    report, alone = report_of(tmp_path / "both", tmp_path), report_of(linear_store, tmp_path / "b")
    assert (report["mirrored"], alone["mirrored"]) == (True, False)
    assert report["channels"] == alone["channels"]
    assert "latent_flip" in page_of(report) and "latent_flip" not in page_of(alone)


def test_a_single_shard(tmp_path, linear_store):
    shard = linear_store / "shards" / "000000.safetensors"
    report = report_of(shard, tmp_path)
    assert report["samples"] == report["samples_read"] == 4 and report["recorded"] is None
    values = torch.cat([t.double().flatten(1) for t in load_file(shard).values()], dim=1)
    np.testing.assert_allclose(report["channels"]["mean"], values.mean(1).numpy(), atol=1e-12)


def test_moments_are_measured_by_their_mode(tmp_path, moments_store):
    report = report_of(moments_store, tmp_path)
    opened = open_store(str(moments_store))
    values = torch.cat([opened[key].double().flatten(1) for key in opened], dim=1)
    np.testing.assert_allclose(report["channels"]["mean"], values.mean(1).numpy(), atol=1e-12)
    assert report["recorded"] is None and report["state"] == "moments"


def test_raw_latents_are_compared_with_the_models_own_figures(tmp_path, photos):
    encode(photos, tmp_path / "raw", LINEAR, latents="raw")
    report = report_of(tmp_path / "raw", tmp_path)
    assert "that the weights of linear16 hold" in report["expected"]["words"]
    bundled = Path(__file__).parents[3] / "latentcli/models/bundled/linear16/model.safetensors"
    variance = load_file(bundled)["running_var"]
    np.testing.assert_allclose(report["expected"]["std"], variance.double().sqrt().numpy())
    assert report["expected"]["mean"] == [0.0] * 128


def test_weights_of_another_digest_say_nothing():
    told = {"model": LINEAR, "weights_sha256": "0" * 64}
    assert running_statistics(128, told) is None
    assert running_statistics(64, {"model": LINEAR}) is None
    assert running_statistics(128, {"model": "no such model"}) is None
    assert reference_of("raw", 128, told).mean is None
    assert reference_of("scaled", 4, {}).whole_std == 1


def test_fewer_samples_are_spread_evenly(tmp_path, linear_store):
    report = report_of(linear_store, tmp_path, samples=3)
    assert report["samples"] == 9 and report["samples_read"] == 3
    latents = latents_of(linear_store)
    keys = list(open_store(str(linear_store)))
    chosen = [latents[f"{keys[i]}/latent"].double().flatten(1) for i in (0, 4, 8)]
    expected = torch.cat(chosen, dim=1).mean(1).numpy()
    np.testing.assert_allclose(report["channels"]["mean"], expected, atol=1e-12)
    assert "3 of 9 samples were read" in page_of(report)
    assert report_of(linear_store, tmp_path, samples=0)["samples_read"] == 9


def test_places_are_spread():
    assert list(spread(3, 9)) == [0, 4, 8] and list(spread(9, 3)) == [0, 1, 2]
    assert list(spread(1, 5)) == [0] and list(spread(4, 0)) == []
    places = spread(100, 10**6)
    assert len(places) == 100 and places[0] == 0 and places[-1] == 10**6 - 1


def test_wrong_options_are_refused_before_anything_is_written(tmp_path, linear_store):
    with pytest.raises(UsageError, match="report-samples is -1"):
        inspect_store(str(linear_store), str(tmp_path / "report"), -1)
    with pytest.raises(UsageError, match="needs --report"):
        inspect_store(str(linear_store), None, 5)
    with pytest.raises(StoreError, match="There is no"):
        inspect_store(str(tmp_path / "none"), str(tmp_path / "report"))
    with pytest.raises(UsageError, match="holds other things"):
        inspect_store(str(linear_store), str(linear_store))
    assert not (tmp_path / "report").exists()


def grown(store: Path, target: Path, units: int) -> Path:
    """A store whose first unit is there many times, under other keys."""
    shutil.copytree(store, target)
    record = json.loads((store / "shards" / "000000.json").read_text())
    with safe_open(store / "shards" / "000000.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors = load_file(store / "shards" / "000000.safetensors")
    for unit in range(units):
        rows = [row | {"key": f"{unit}/{row['key']}"} for row in record["rows"]]
        named = {f"{unit}/{name}": tensor for name, tensor in tensors.items()}
        shard = target / "shards" / f"{unit:06d}.safetensors"
        save_file(named, shard, metadata)
        told = record | {"unit": unit, "shard": shard.name, "rows": rows}
        told |= {"bytes": shard.stat().st_size}
        (target / "shards" / f"{unit:06d}.json").write_text(json.dumps(told))
    return target


def peak(store: Path, folder: Path) -> tuple[int, int, int]:
    """Samples read, the most bytes that Python and numpy held, and the most tensors seen alive."""
    calls, alive = 0, 0

    def look(_: object) -> None:
        nonlocal calls, alive
        calls += 1
        if calls % 40 == 0:
            alive = max(alive, sum(type(item) is torch.Tensor for item in gc.get_objects()))

    tracemalloc.start()
    try:
        report = report_of(store, folder, samples=0, reporter=Reporter(progress=look))
        return report["samples_read"], tracemalloc.get_traced_memory()[1], alive
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_store(tmp_path, linear_store):
    peak(linear_store, tmp_path)
    few, small, fewer = peak(grown(linear_store, tmp_path / "small", 30), tmp_path)
    many, large, more = peak(grown(linear_store, tmp_path / "large", 150), tmp_path)
    assert (few, many) == (120, 600)
    assert large < 1.15 * small + 200_000
    assert 0 < more < fewer + 50


def test_a_readable_store_tells_a_problem_once(tmp_path, linear_store):
    store = ReadableStore(linear_store)
    for _ in range(3):
        store.damage.add("the same")
    assert store.damage.count == 1 and len(list(store.units())) == 3 and store.samples == 9


def test_clips_are_looked_at_by_frames_spread_over_them(tmp_path):
    pytest.importorskip("av")
    from clipkit import clips_in

    encode(clips_in(tmp_path / "clips", (3, 20)), tmp_path / "store", LINEAR, media="clips")
    report = report_of(tmp_path / "store", tmp_path)
    assert report["clips"] and report["samples_read"] == 2 and report["frames_read"] == 3 + 8
    opened = open_store(str(tmp_path / "store"))
    chosen = [opened[key][list(spread(8, len(opened[key])))] for key in opened]
    values = torch.cat([t.double().transpose(0, 1).flatten(1) for t in chosen], dim=1)
    np.testing.assert_allclose(report["channels"]["mean"], values.mean(1).numpy(), atol=1e-12)
    assert len(report["thumbnails"]["items"]) == 2 and "2 clips" in page_of(report)


@pytest.mark.parametrize("sums", [None, {"count": 1}, {"count": 1, "mean": [0.0], "m2": [0.0]}])
def test_records_without_sound_sums_are_no_reference(tmp_path, linear_store, sums):
    store = tmp_path / "store"
    shutil.copytree(linear_store, store)
    path = store / "shards" / "000001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"channels": sums}))
    assert inspect_store(str(store))["encoded"] == 9
    report = report_of(store, tmp_path)
    assert report["recorded"] is None and report["samples_read"] == 9


def test_a_store_on_remote_storage(tmp_path, linear_store):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    for path in sorted(linear_store.rglob("*")):
        if path.is_file():
            memory.pipe(f"/reported/{path.relative_to(linear_store)}", path.read_bytes())
    try:
        remote = report_of("memory://reported", tmp_path)
    finally:
        memory.rm("/reported", recursive=True)
    here = report_of(linear_store, tmp_path)
    assert remote["channels"] == here["channels"] and remote["histogram"] == here["histogram"]
