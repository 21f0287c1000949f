"""webshart: the index that it makes of a tar itself, and what its reader makes of ours."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import numpy as np
import pytest
from goldens import golden
from harness.consumers import consumer
from readers import members
from rows import rows_of, whole

from latentcli.exports.webshart import FORMAT


def written(tmp_path, samples, one, per_file):
    """A folder of the files."""
    for path, data in whole(FORMAT, samples, one, per_file).items():
        (tmp_path / path).write_bytes(data)
    return str(tmp_path)


def test_the_index_is_of_the_tar_beside_it():
    samples, one = rows_of(FORMAT, 7, mirrored=True, downscale=16)
    files = whole(FORMAT, samples, one, 3)
    assert [*files] == [f"shard_{i:06d}.{end}" for i in range(3) for end in ("tar", "json")]
    keys = []
    for number in range(3):
        tar, index = files[f"shard_{number:06d}.tar"], json.loads(files[f"shard_{number:06d}.json"])
        assert index["path"] == f"shard_{number:06d}.tar" and index["filesize"] == len(tar)
        assert [*index["files"]] == [name for name, _, _ in members(tar)]
        assert all(name == entry["path"] for name, entry in index["files"].items())
        for name, _, data in members(tar):
            entry = index["files"][name]
            assert tar[entry["offset"] :][: entry["length"]] == data
        for latent, document in list(pairwise(index["files"].values()))[::2]:
            begin, end = latent["json_offset"], latent["json_length"]
            assert json.loads(tar[begin : begin + end]) == latent["json_metadata"]
            assert latent["json_path"] == document["path"]
            keys.append(latent["json_metadata"]["key"])
            shape = np.load(io.BytesIO(tar[latent["offset"] :])).shape
            assert (latent["height"], latent["width"]) == (shape[1] * 16, shape[2] * 16)
            assert latent.get("captions", "") == samples[len(keys) - 1].caption
    assert keys == [it.key for it in samples]


@pytest.mark.shared
def test_entries_have_the_names_of_its_own_index(shared):
    _, _, files = golden(shared, "webshart")
    theirs = json.loads(files["shard_000.json"])
    samples, one = rows_of(FORMAT, 2, same_size=True)
    ours = json.loads(whole(FORMAT, samples, one, 2)["shard_000000.json"])
    assert ours.keys() == theirs.keys()
    names = {name: entry.keys() for name, entry in theirs["files"].items()}
    mine = [entry.keys() for entry in ours["files"].values()]
    # The caption of the first sample is empty.
    assert mine[0] == names["a/cat.png"] - {"captions"}
    assert mine[2] == names["a/cat.png"] and mine[1] == mine[3] == names["a/cat.json"]
    # Its own offsets are those of the data as well.
    for name, _, data in members(files["shard_000.tar"]):
        entry = theirs["files"][name]
        assert files["shard_000.tar"][entry["offset"] :][: entry["length"]] == data


def test_websharts_own_reader(tmp_path):
    webshart = consumer("webshart")
    samples, one = rows_of(FORMAT, 7, labelled=True)
    dataset = webshart.discover_dataset(source=written(tmp_path, samples, one, 3))
    assert dataset.num_shards == 3
    assert [dataset.get_shard_sample_count(i) for i in range(3)] == [3, 3, 1]
    loader = webshart.TarDataLoader(dataset)
    found = {}
    for i in range(7):
        entry = loader.load_sample(i // 3, i % 3)
        found[entry.json_metadata["key"]] = entry
    for it in samples:
        entry = found[it.key]
        np.testing.assert_array_equal(np.load(io.BytesIO(entry.data)), it.latent.half().numpy())
        assert (entry.captions or "") == it.caption
    buckets = loader.list_shard_sample_aspect_buckets([0], key="geometry-tuple")[0]["buckets"]
    assert sum(map(len, buckets.values())) == 3


def test_its_own_extractor_agrees(tmp_path):
    """The index that webshart makes of our tar says the same of where things are."""
    webshart = consumer("webshart")
    samples, one = rows_of(FORMAT, 4)
    source = written(tmp_path, samples, one, 4)
    ours = json.loads((tmp_path / "shard_000000.json").read_text())
    (tmp_path / "shard_000000.json").unlink()
    made = tmp_path / "made"
    extractor = webshart.MetadataExtractor()
    extractor.extract_metadata(source, str(made))
    theirs = json.loads(next(made.rglob("*.json")).read_text())
    places = {
        name: {key: entry[key] for key in ("offset", "length")}
        for name, entry in ours["files"].items()
    }
    assert places == {
        name: {key: entry[key] for key in ("offset", "length")}
        for name, entry in theirs["files"].items()
    }
    assert ours["filesize"] == theirs["filesize"]
