"""The dataset card of a store: what it says and hides, what a person adds, and what it disturbs."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from pathlib import Path

import jobkit
import pytest
import yaml

from latentcli.cli.jobfile import resolve
from latentcli.core.errors import UsageError
from latentcli.core.mark import MADE_BY
from latentcli.jobs.config import EncodeJob, SyncJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.sync import run_sync
from latentcli.jobs.store.card import run_card, source_names
from latentcli.jobs.store.card_file import HandWritten, merged, parse_card
from latentcli.jobs.store.config import CardJob, VerifyJob
from latentcli.jobs.store.encode_command import encode_words
from latentcli.jobs.store.verify import run_verify
from latentcli.shards.store.manifest import read_manifest
from latentcli.shards.store.roots import read_roots


@pytest.fixture(scope="module")
def captioned(tmp_path_factory, model):
    """A store of 12 pictures of four sizes, one of which is broken; every other has a caption."""
    folder = tmp_path_factory.mktemp("private") / "cats & dogs"
    jobkit.toy_pictures(folder, 12, bad_every=12)
    for path in sorted(folder.rglob("*.jpg"))[::2]:
        path.with_suffix(".txt").write_text("a cat")
    return folder


@pytest.fixture
def store(tmp_path, captioned, model):
    jobkit.encode(captioned, tmp_path / "cats.toy.latents", model)
    return tmp_path / "cats.toy.latents"


def card(store: Path, **options: object) -> str:
    document = run_card(CardJob(store=str(store), **options))
    return document.get("card") or Path(document["path"]).read_text()


def front_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_card_tells_what_is_there_and_hides_where_it_lay(store, captioned, model):
    before = files_of(store)
    text = card(store)
    front = front_of(text)
    assert front["license"] == "unknown" and front["size_categories"] == ["n<1K"]
    assert front["task_categories"] == ["text-to-image"]
    assert front["configs"][0]["data_files"][0]["path"] == "inputs.jsonl"
    for told in (
        "Latents of 11 images",
        "| inputs | 12 |",
        "| failed | 1 (",
        "| with a caption | 6 |",
        "`cats & dogs`",
        read_manifest(store).model["weights_sha256"],
        "8 channels, one cell for 16x16 pixels",
        'open_store("hf://datasets/OWNER/NAME")',
    ):
        assert told in text, told
    assert str(captioned.parent) not in text and str(Path(model).parent) not in text
    assert str(store.parent) not in text
    shown = sorted(path.name for path in (store / "card").glob("*.png"))
    assert len(shown) == 11 and all(f'src="card/{name}"' in text for name in shown)
    assert all(MADE_BY.encode() in (store / "card" / name).read_bytes() for name in shown)
    after = files_of(store)
    assert {name: after[name] for name in before} == before
    assert card(store) == text and files_of(store) == after


def test_the_store_lives_on_beside_its_card(store, captioned, model, tmp_path):
    card(store)
    first = files_of(store)
    assert run_verify(VerifyJob(store=str(store), samples=0))["ok"]
    found = jobkit.encode(captioned, store, model)
    assert (found["encoded"], found["skipped"]) == (0, 11)
    assert run_sync(SyncJob(store=str(store)))["dropped"] == 0
    assert files_of(store) == first
    # The pictures are no inputs, where the store lies in a folder that is encoded.
    with pytest.raises(UsageError, match="found: 1 latent store"):
        jobkit.encode(store.parent, store.parent / "other", model)
    # Nor are they where they lie alone, as in a download of the card.
    shutil.copytree(store / "card", tmp_path / "alone" / "card")
    with pytest.raises(UsageError, match="11 files that latentcli wrote"):
        jobkit.encode(tmp_path / "alone", store.parent / "other", model)


def test_fewer_pictures_drop_those_of_before(store):
    card(store)
    assert "Latents in colours" in card(store, pictures=3)
    assert len(list((store / "card").glob("*.png"))) == 3
    assert "Latents in colours" not in card(store, pictures=0)
    assert not list((store / "card").glob("*.png"))


def test_words_of_a_person_stay(store):
    path = store / "README.md"
    text = card(store, license="cc-by-4.0")
    assert front_of(text)["license"] == "cc-by-4.0"
    # Made again without the option, it keeps the licence.
    assert card(store) == text
    edited = text.replace("license: cc-by-4.0", "license: mit").replace(
        "---\n<!--", "---\nHello.\n<!--"
    )
    path.write_text(edited + "\nAnd more.\n")
    again = card(store, pictures=2)
    assert front_of(again)["license"] == "mit" and "Hello.\n" in again and "And more.\n" in again
    assert again.count("<img") == 2
    path.write_text(again.replace("Latents of 11", "My latents of 11"))
    with pytest.raises(HandWritten, match="was changed by hand between the marks"):
        card(store)
    assert "My latents of 11" in path.read_text()
    assert "My latents" not in card(store, force=True)
    path.write_text("# Mine\n")
    with pytest.raises(HandWritten, match="was written by hand"):
        card(store)
    assert path.read_text() == "# Mine\n"


def test_marks_are_found_again_and_nothing_else():
    document = merged(None, "license: mit\n", "# A\n\ntext with --- in it\n")
    found = parse_card(document)
    assert found is not None and found.is_own_front and found.is_own_text
    assert (found.front, found.text) == ("license: mit\n", "# A\n\ntext with --- in it\n")
    assert parse_card("# A\n") is None
    assert merged("  \n", "license: mit\n", "# A\n") == merged(None, "license: mit\n", "# A\n")


def test_the_card_goes_elsewhere_or_to_stdout(store, tmp_path):
    text = card(store, output="-")
    assert "Latents of 11 images" in text and not (store / "README.md").exists()
    assert "<img" not in text
    (tmp_path / "there").mkdir()
    other = card(store, output=str(tmp_path / "there" / "about.md"))
    assert (tmp_path / "there" / "card" / "000.png").is_file() and "<img" in other
    assert not (store / "card").exists()
    shard = next((store / "shards").glob("*.safetensors"))
    with pytest.raises(UsageError, match="single shard"):
        run_card(CardJob(store=str(shard)))


COMMANDS = (
    {},
    {"size": "64x48", "filter": "box", "flip": "both", "alpha": "black"},
    {"resize": None, "area": "64", "bucket_step": 16, "bucket_rule": "area", "no_upscale": True},
    {"latents": "raw", "shard_format": "webdataset", "samples_per_shard": 5, "min_side": 8},
    {"store_dtype": "int8", "size": "64", "exact_resize": True},
    {"latents": "moments", "max_aspect": 1.5, "min_megapixels": 0.001, "samples_per_shard": None},
)


@pytest.mark.parametrize("options", COMMANDS)
def test_the_command_makes_the_same_store(tmp_path, captioned, model, options):
    store = tmp_path / "store"
    jobkit.encode(captioned, store, model, **options)
    manifest = read_manifest(store)
    words = encode_words(manifest, [str(captioned)], str(tmp_path / "again"), "auto")
    # The model has its folder's name alone in it, and this test knows where that is.
    words[words.index("--model") + 1] = model
    run_encode(parsed(words))
    again = read_manifest(tmp_path / "again")
    assert again.spec_hash == manifest.spec_hash
    shards = [files_of(path / "shards") for path in (store, tmp_path / "again")]
    assert shards[0] == shards[1]
    assert shlex.join(words).count("--batch-size 3") == 1


def parsed(words: list[str]) -> EncodeJob:
    """The job of a command line, as the program has it."""
    from typer.main import get_command

    from latentcli.cli.app import app

    command = get_command(app).commands["encode"]
    with command.make_context("encode", words[1:]) as context:
        params = {k: v for k, v in context.params.items() if k not in ("json", "quiet")}
        return resolve(EncodeJob, "encode", params)[0]


def test_statistics_are_those_of_the_manifest(store):
    channels = read_manifest(store).channels
    text = card(store, output="-")
    low, high = min(channels["mean"]), max(channels["mean"])
    assert f"{low:.4g} (channel {channels['mean'].index(low)})" in text
    assert f"{high:.4g} (channel {channels['mean'].index(high)})" in text


def test_sources_are_named_and_not_located():
    roots = ("/home/me/secret/cats", "s3://bucket/inner/dogs", "hf://datasets/a/b/data")
    web = ("https://user:pass@host/x/y?token=1", "/home/you/cats", "/")
    named = ["cats", "dogs", "hf://datasets/a/b/data", "https://host/x/y", "files"]
    assert source_names((*roots, *web)) == named


@pytest.mark.parametrize(
    ("shard_format", "captions"),
    [("safetensors", "auto"), ("webdataset", "auto"), ("webdataset", "none")],
)
def test_the_hubs_own_reader_takes_the_folder(tmp_path, captioned, model, shard_format, captions):
    datasets = pytest.importorskip("datasets")
    store = tmp_path / "store"
    jobkit.encode(captioned, store, model, shard_format=shard_format, captions=captions)
    card(store)
    loaded = datasets.load_dataset(str(store), cache_dir=str(tmp_path / "cache"))["train"]
    listed = [json.loads(line) for line in (store / "inputs.jsonl").read_text().splitlines()]
    if captions == "auto":  # of tars too: some samples have one, which it does not take
        assert list(loaded["key"]) == [row["key"] for row in listed]
    else:
        assert loaded.num_rows == 11 and "latent.safetensors" in loaded.column_names


def test_a_store_that_moved_tells_of_no_roots(store):
    (store / "sources.json").unlink()
    assert read_roots(store).paths == ()
    assert "| sources | not told |" in card(store, output="-")
    assert "latentcli encode SOURCES" in card(store, output="-")


def test_thumbnails_do_not_depend_on_what_is_shown(store):
    """The basis is of samples all over the store."""
    card(store, pictures=11)
    first = {p.name: p.read_bytes() for p in (store / "card").glob("*.png")}
    card(store, pictures=1)
    assert (store / "card" / "000.png").read_bytes() == first["000.png"]
    pixels = jobkit.pictures_of(store / "card")
    assert all(image.std() > 5 for image in pixels.values())
    assert len(set(itertools.chain(first.values()))) == 11
