"""A store's report shows what latents were made from, where that is at hand and unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import tarjobkit
from clipkit import clips_in
from encodekit import LINEAR, pictures
from jobkit import encode
from PIL import Image

from latentcli.jobs.store.damaged_reader import ReadableStore
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.source_pictures import Sources


def items_of(store, folder) -> list[dict]:
    return inspect_store(str(store), str(folder))["report"]["thumbnails"]["items"]


@pytest.fixture
def made(tmp_path):
    """A folder of four pictures, and their store."""
    folder = pictures(tmp_path / "in", [(64, 48)] * 4)
    encode(folder, tmp_path / "store", LINEAR)
    return folder, tmp_path / "store"


def test_sources_stand_beside_their_latents(tmp_path, made):
    folder, store = made
    for item in items_of(store, tmp_path / "page"):
        shown = Image.open(tmp_path / "page" / item["source"])
        assert shown.format == "WEBP"
        original = Image.open(folder / f"{item['key']}.png").convert("RGB")
        difference = np.asarray(shown).astype(int) - np.asarray(original.resize(shown.size))
        assert np.abs(difference).mean() < 12


def test_a_source_that_is_gone_or_changed_is_not_shown(tmp_path, made):
    folder, store = made
    (folder / "0001.png").unlink()
    (folder / "0002.png").write_bytes(tarjobkit.picture(9, (64, 48)))
    (folder / "0003.png").write_bytes(b"no picture")
    shown = {item["key"]: item["source"] for item in items_of(store, tmp_path / "page")}
    assert shown["0000"] and not any(shown[f"000{i}"] for i in (1, 2, 3))
    assert len(list((tmp_path / "page/files").rglob("*.source.webp"))) == 1


def test_a_store_that_does_not_say_where_its_sources_lie_shows_none(tmp_path, made, monkeypatch):
    folder, store = made
    (store / "sources.json").unlink()
    monkeypatch.chdir(folder)
    assert not any(item["source"] for item in items_of(store, tmp_path / "page"))


def test_pictures_in_a_tar_are_shown_and_clips_are_not(tmp_path):
    tar = tarjobkit.make_tar(
        tmp_path / "a.tar", [(f"{i}.png", tarjobkit.picture(i, (64, 64))) for i in range(3)]
    )
    encode(tar, tmp_path / "of_tar", LINEAR, samples_per_shard=None)
    assert all(item["source"] for item in items_of(tmp_path / "of_tar", tmp_path / "page"))
    encode(clips_in(tmp_path / "clips", [3]), tmp_path / "of_clips", LINEAR)
    assert not any(item["source"] for item in items_of(tmp_path / "of_clips", tmp_path / "other"))


def test_a_damaged_list_of_roots_costs_the_sources_alone(tmp_path, made):
    _, store = made
    reader = ReadableStore(store)
    (unit,) = reader.units()
    row = next(row for row in unit.rows if row.status == "ok")
    assert Sources(reader).pixels(row).shape == (3, 48, 64)
    (store / "sources.json").write_text('{"roots": 3}')
    assert Sources(reader).pixels(row) is None
