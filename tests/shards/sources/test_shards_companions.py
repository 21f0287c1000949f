"""What belongs to pictures of folders and buckets: found by a listing, and read."""

from __future__ import annotations

import json
import os
import pickle
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from harness.s3 import needs_s3, s3_server

from latentcli.core.caption_counts import CaptionCounts
from latentcli.core.fields import AUTO, caption_rule
from latentcli.shards.sources import companions, endings_there
from latentcli.shards.sources.companions import Companions
from latentcli.shards.sources.file_list import Files

KOHYA = {"1": {"caption": "kohya", "tags": "a, b"}, "5": {"tags": "c"}}
TREE: dict[str, bytes] = {
    "1.jpg": b"",
    "1.txt": b"one \n",
    "1.caption": b"not taken",
    "1.json": b'{"caption": "nor this", "url": "u"}',
    "2.jpg": b"",
    "2.caption": b"two",
    "a/3.jpg": b"",
    "a/3.json": b'{"caption": "three", "n": 3}',
    "a/metadata.jsonl": b'{"file_name": "4.jpg", "text": "four", "x": 1}\n'
    b'{"file_name": "3.jpg", "text": "not taken", "n": 4}\n',
    "a/4.jpg": b"",
    "a/b/5.jpg": b"",
    "a/b/captions.json": json.dumps(KOHYA).encode(),
    "metadata.csv": b"file_name,caption,split\na/4.jpg,far,train\na/b/6.jpg,six,test\n",
    "a/b/6.jpg": b"",
    "a/b/7.jpg": b"",
    "a/b/1.jpg": b"",
    "a/b.c.jpg": b"",
    "a/b.c.txt": b"dots",
    "a/none": b"",
    "a/none.txt": b"no suffix",
    "captions.jpg": b"",
}
WANTED: dict[str, dict[str, object]] = {
    "1.jpg": {"caption": "one", "url": "u"},
    "2.jpg": {"caption": "two"},
    "a/3.jpg": {"caption": "three", "n": 3, "text": "not taken"},
    "a/4.jpg": {"caption": "four", "text": "four", "x": 1, "split": "train"},
    "a/b/5.jpg": {"caption": "c", "tags": "c"},
    "a/b/6.jpg": {"caption": "six", "split": "test"},
    "a/b/7.jpg": {},
    "a/b/1.jpg": {"caption": "kohya", "tags": "a, b"},
    "a/b.c.jpg": {"caption": "dots"},
    "a/none": {"caption": "no suffix"},
    "captions.jpg": {},
}


def write(folder: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def files_of(root: str, names: list[str]) -> Files:
    files = Files()
    for name in names:
        files.add(f"{root}/{name}")
    return files


def stamps_of(root: object, names: list[str] | None = None, mode: str = "auto") -> dict[str, int]:
    names = list(WANTED) if names is None else names
    rule = caption_rule(mode)
    assert rule is not None
    stamps, _ = Companions([str(root)], rule).stamps(files_of(str(root), names))
    assert isinstance(stamps, array) and stamps.typecode == "q"
    return dict(zip(names, stamps, strict=True))


def fields_of(root: object, *names: str, mode: str = "auto") -> list[dict[str, object]]:
    rule = caption_rule(mode)
    assert rule is not None
    found = Companions([str(root)], rule).read([f"{root}/{name}" for name in names])
    return [one.fields for one in found]


@pytest.fixture
def tree(tmp_path):
    return write(tmp_path, TREE)


def test_fields(tree):
    assert dict(zip(WANTED, fields_of(tree, *WANTED), strict=True)) == WANTED


def test_stamps_say_who_has_something(tree):
    stamps = stamps_of(tree)
    assert {name for name, stamp in stamps.items() if stamp} == {n for n in WANTED if WANTED[n]}
    assert stamps == stamps_of(tree)
    # The order and the choice of inputs do not matter.
    some = [name for name in reversed(WANTED) if "b" not in name]
    assert stamps_of(tree, some) == {name: stamps[name] for name in some}


def test_the_root_bounds_what_is_looked_at(tree):
    assert fields_of(tree / "a" / "b", "6.jpg", "5.jpg") == [{}, WANTED["a/b/5.jpg"]]
    assert stamps_of(tree / "a" / "b", ["6.jpg"]) == {"6.jpg": 0}
    # The outermost of several roots counts, and of none only the folder itself.
    paths = files_of(str(tree), ["a/b/6.jpg", "2.jpg"])
    for roots, some in (([tree / "a" / "b", tree], True), ([], False), ([tree / "a"], False)):
        stamps, _ = Companions(map(str, roots), AUTO).stamps(paths)
        assert (stamps[0] != 0, stamps[1] != 0) == (some, True)


CHANGES = {
    "1.txt": ("1.txt", b"other"),
    "1.json": ("1.json", b"{}"),
    "1.caption": ("1.caption", b""),
    "4.txt": ("a/4.txt", b"new"),
    "a row": ("a/metadata.jsonl", TREE["a/metadata.jsonl"].replace(b"four", b"vier")),
    "a far row": ("metadata.csv", TREE["metadata.csv"].replace(b"six", b"sex")),
    "kohya": ("a/b/captions.json", json.dumps(KOHYA | {"5": "five"}).encode()),
    "a new file": ("a/b/metadata.csv", b"file_name,x\n7.jpg,7\n"),
}
CHANGED = {
    **dict.fromkeys(("1.txt", "1.json", "1.caption"), "1.jpg"),
    **dict.fromkeys(("4.txt", "a row"), "a/4.jpg"),
    "a far row": "a/b/6.jpg",
    "kohya": "a/b/5.jpg",
    "a new file": "a/b/7.jpg",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stamp_changes_with_what_it_stands_for(tree, change):
    before = stamps_of(tree)
    name, data = CHANGES[change]
    (tree / name).write_bytes(data)
    after = stamps_of(tree)
    assert [name for name in WANTED if before[name] != after[name]] == [CHANGED[change]]


def test_a_stamp_changes_with_time_place_and_mode(tree):
    before = stamps_of(tree)
    os.utime(tree / "1.txt", ns=(1, 1))
    (tree / "2.caption").rename(tree / "2.txt")
    (tree / "a" / "none.txt").chmod(0o600)
    after = stamps_of(tree)
    assert [n for n in WANTED if before[n] != after[n]] == ["1.jpg", "2.jpg", "a/none"]
    assert stamps_of(tree)["1.jpg"] != stamps_of(tree, mode="txt")["1.jpg"] != 0
    assert stamps_of(tree, mode="caption")["2.jpg"] == 0
    (tree / "2.txt").unlink()
    assert stamps_of(tree)["2.jpg"] == 0


def test_rows_that_change_places_are_noticed(tmp_path):
    """The nearer row has precedence, so the same two rows in other places say something else."""
    rows = [json.dumps({"file_name": f"{tmp_path}/a/1.jpg", "x": x}).encode() for x in (1, 2)]
    near, far = "a/metadata.jsonl", "metadata.jsonl"
    write(tmp_path, {near: rows[0], far: rows[1]})
    before, fields = stamps_of(tmp_path, ["a/1.jpg"]), fields_of(tmp_path, "a/1.jpg")
    write(tmp_path, {near: rows[1], far: rows[0]})
    assert stamps_of(tmp_path, ["a/1.jpg"]) != before
    assert (fields, fields_of(tmp_path, "a/1.jpg")) == ([{"x": 1}], [{"x": 2}])


def test_a_moved_folder_keeps_its_stamps(tree, tmp_path_factory):
    before = stamps_of(tree)
    moved = tmp_path_factory.mktemp("moved") / "there"
    tree.rename(moved)
    assert stamps_of(moved) == before


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("tags", [{"caption": "t", "prompt": "p"}, {"caption": "c", "prompt": "q", "tags": "c"}]),
        ("prompt", [{"caption": "p", "prompt": "p"}, {"caption": "q", "prompt": "q", "tags": "c"}]),
        ("txt", [{"caption": "x", "prompt": "p"}, {"prompt": "q", "tags": "c"}]),
        ("jpg.txt", [{"caption": "y", "prompt": "p"}, {"prompt": "q", "tags": "c"}]),
    ],
)
def test_named_captions(tmp_path, mode, fields):
    write(
        tmp_path,
        {
            "1.jpg": b"",
            "1.txt": b"x",
            "1.tags": b"t",
            "1.jpg.txt": b"y",
            "2.jpg": b"",
            "1.json": b'{"caption": "j", "prompt": "p"}',
            "captions.json": b'{"2": {"caption": "k", "prompt": "q", "tags": "c"}}',
        },
    )
    assert fields_of(tmp_path, "1.jpg", "2.jpg", mode=mode) == fields


def test_pictures_of_one_stem_share_a_text(tmp_path):
    write(tmp_path, {"1.jpg": b"", "1.png": b"", "1.txt": b"both"})
    assert fields_of(tmp_path, "1.jpg", "1.png") == [{"caption": "both"}] * 2


def test_what_is_refused_is_counted(tmp_path):
    bad = {
        "1.txt": b" ",
        "2.txt": b"\xe4",
        "3.txt": b"x" * 70_000,
        "4.json": b"{",
        "5.txt": b"5",
        "6.json": b'{"a": "%b"}' % (b"x" * 2**20),
        "5.json": b"[]",
        "metadata.jsonl": b'{"file_name": "1.jpg", "text": "row"}\n{}\n{"file_name": "0.jpg"}\n',
    }
    write(tmp_path, bad)
    names = [f"{i}.jpg" for i in range(1, 8)]
    found = Companions([str(tmp_path)], AUTO)
    _, counts = found.stamps(files_of(str(tmp_path), names))
    for name, one in zip(names, found.read([f"{tmp_path}/{n}" for n in names]), strict=True):
        counts.add(name, one)
    document = counts.to_json()
    examples = document.pop("examples")
    assert document == {
        "with_caption": 2,
        "missing": 1,
        "empty": 1,
        "not_utf8": 1,
        "too_long": 2,
        "broken": 3,
        "unreadable": 0,
        "unused_rows": 1,
    }
    assert examples["too_long"][0] == "3.jpg: 3.txt: it has more than 65,536 bytes"
    assert examples["missing"] == ["7.jpg"]
    assert examples["unused_rows"] == [f"{tmp_path}/metadata.jsonl: 0.jpg"]


def test_odd_names(tmp_path):
    name = os.fsdecode(b"b\xe4r %41 [x]")
    write(tmp_path, {f"{name}.txt": b"bear", f"{name}.jpg": b"", "-1.txt": b"minus"})
    (tmp_path / "3.txt").mkdir()
    (tmp_path / "4.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "5.txt")
    long = "n" * 250
    names = [f"{name}.jpg", "-1.jpg", "3.jpg", "4.jpg", f"{long}.jpg"]
    assert fields_of(tmp_path, *names, "5.jpg") == [
        *({"caption": "bear"}, {"caption": "minus"}, {}, {}, {}, {})
    ]
    stamps = list(stamps_of(tmp_path, names).values())
    assert stamps[0] and stamps[1] and not stamps[3] and not stamps[4]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path):
    write(tmp_path, {"1.txt": b"one", "a/1.txt": b"two"})
    (tmp_path / "1.txt").chmod(0)
    (tmp_path / "a").chmod(0o300)
    found = Companions([str(tmp_path)], AUTO)
    stamps, counts = found.stamps(files_of(str(tmp_path), ["1.jpg", "a/1.jpg"]))
    assert stamps[0] != 0 and stamps[1] == 0
    assert counts.counts["unreadable"] == 1 and str(tmp_path / "a") in str(counts.examples)
    one, two = found.read([f"{tmp_path}/1.jpg", f"{tmp_path}/a/1.jpg"])
    assert [p.kind for p in one.problems] == ["unreadable"]
    assert two.caption == "two"
    (tmp_path / "a").chmod(0o700)


def test_folders_that_are_not_there(tmp_path):
    assert stamps_of(tmp_path, ["gone/1.jpg"]) == {"gone/1.jpg": 0}
    assert fields_of(tmp_path, "gone/1.jpg") == [{}]


def test_another_process_gets_the_same(tree):
    found = Companions([str(tree)], AUTO)
    paths = [f"{tree}/{name}" for name in WANTED]
    before = [one.fields for one in found.read(paths)]
    copy = pickle.loads(pickle.dumps(found))
    assert [one.fields for one in copy.read(paths)] == before == list(WANTED.values())
    assert (
        copy.stamps(files_of(str(tree), list(WANTED)))[0]
        == found.stamps(files_of(str(tree), list(WANTED)))[0]
    )


EVENTS: list[tuple[str, str]] | None = None


def heard(event: str, arguments: tuple[object, ...]) -> None:
    if EVENTS is not None and event in ("os.scandir", "open"):
        EVENTS.append((event, str(arguments[0])))


@pytest.fixture(scope="module")
def listening():
    """Tells what is listed and opened; a hook cannot be taken back, but it can be deaf."""
    sys.addaudithook(heard)


@pytest.fixture
def events(listening) -> Iterator[list[tuple[str, str]]]:
    global EVENTS
    EVENTS = []
    yield EVENTS
    EVENTS = None


def test_stamps_list_each_folder_once_and_open_metadata_alone(tree, events):
    names = [f"many/{i:03d}.jpg" for i in range(300)]
    write(tree, {name.replace("jpg", "txt"): b"x" for name in names})
    events.clear()
    assert sum(stamp != 0 for stamp in stamps_of(tree, [*WANTED, *names]).values()) == 309
    listed = Counter(path for event, path in events if event == "os.scandir")
    folders = [str(tree / name) for name in ("", "a", "a/b", "many")]
    assert listed == Counter(folders)
    opened = {Path(path).name for event, path in events if event == "open" and str(tree) in path}
    assert opened == {"metadata.csv", "metadata.jsonl", "captions.json"}


def test_metadata_is_indexed_once(tree, events, monkeypatch):
    # A folder is listed again while a change may not be seen.
    monkeypatch.setattr(endings_there, "SETTLED", -1.0)
    found = Companions([str(tree)], AUTO)
    paths = [f"{tree}/{name}" for name in WANTED]
    found.stamps(files_of(str(tree), list(WANTED)))
    found.read(paths)
    events.clear()
    found.read([f"{tree}/2.jpg"])
    opened = [Path(path).name for event, path in events if event == "open"]
    assert not [event for event, _ in events if event == "os.scandir"]
    assert set(opened) == {"2.caption", "2.json", "2.txt"}


def test_few_folders_stay_at_hand(tree, monkeypatch):
    monkeypatch.setattr(companions, "OPEN_FOLDERS", 1)
    assert fields_of(tree, *WANTED) == list(WANTED.values())


def test_a_remote_folder(tmp_path, tree):
    url = f"memory://{tmp_path.name}"
    upload(url, tree)
    assert fields_of(url, *WANTED) == list(WANTED.values())
    stamps = stamps_of(url)
    assert {name for name, stamp in stamps.items() if stamp} == {n for n in WANTED if WANTED[n]}
    with fsspec.open(f"{url}/2.caption", "wb") as file:
        file.write(b"longer")
    changed = stamps_of(url)
    assert [name for name in WANTED if stamps[name] != changed[name]] == ["2.jpg"]
    with fsspec.open(f"{url}/2.txt", "wb") as file:
        file.write(b"x" * 70_000)
    (two,) = Companions([url], AUTO).read([f"{url}/2.jpg"])
    assert two.caption == "longer" and [p.kind for p in two.problems] == ["too_long"]


def upload(url: str, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with fsspec.open(f"{url}/{path.relative_to(folder)}", "wb") as file:
                file.write(path.read_bytes())


def test_web_servers_list_nothing():
    url = "https://example.invalid/a"
    assert stamps_of(url, ["1.jpg"]) == {"1.jpg": 0} and fields_of(url, "1.jpg") == [{}]


@needs_s3
def test_a_bucket_is_listed_by_folders(tree):
    with s3_server() as server:
        url = f"{server.bucket()}/data"
        upload(url, tree)
        with server.proxy() as proxy:
            stamps = stamps_of(url)
            asked = Counter(proxy.requests)
            assert {name for name, stamp in stamps.items() if stamp} == {
                name for name in WANTED if WANTED[name]
            }
            lists = [one for one in asked.elements() if "list-type=2" in one]
            assert len(lists) <= 4
            assert not [one for one in asked if one.startswith("GET") and ".txt" in one]
            proxy.requests.clear()
            assert fields_of(url, *WANTED) == list(WANTED.values())
            # What the listing does not have is not asked for.
            assert not [one for one in proxy.requests if "7." in one or "2.txt" in one]


def test_counts_of_unlisted_metadata_add_up(tree):
    _, counts = Companions([str(tree)], AUTO).stamps(files_of(str(tree), ["2.jpg"]))
    assert isinstance(counts, CaptionCounts) and counts.counts["unused_rows"] == 2
    _, counts = Companions([str(tree)], AUTO).stamps(files_of(str(tree), list(WANTED)))
    assert counts.counts["unused_rows"] == 0
