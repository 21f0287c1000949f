"""What the sources of a job are taken for: pictures, clips, or tars of one of these."""

from __future__ import annotations

import io
import os
import sys
import uuid
from typing import Any

import fsspec
import pytest

from latentcli.core.errors import UsageError
from latentcli.core.fields import caption_rule
from latentcli.jobs.loader import find_media as find_media_module
from latentcli.jobs.loader import left_out
from latentcli.jobs.loader.find_media import Choice, FoundMedia, find_media, is_clip
from latentcli.jobs.loader.readers import TarReader
from latentcli.jobs.runtime.reporter import Reporter


@pytest.fixture
def data(tmp_path):
    """Folders of empty files; what they are is told by their names."""
    names = [
        *("pictures/a.jpg", "pictures/b.png", "tars/0.tar", "tars/1.tar.gz", "tars/sub/2.TGZ"),
        *("mixed/a.jpg", "mixed/0.tar", "mixed/1.tar", "all/a.jpg", "all/a.mp4", "all/a.tar"),
        *("clips/a.mp4", "clips/b.mkv", "clips/0.tar", "none/notes.txt"),
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return tmp_path


def find(
    data, *sources: str, media: str = "auto", allow_pipe: bool = False, **options: Any
) -> tuple[FoundMedia, list[str]]:
    notes: list[str] = []
    whole = [name if ":" in name else str(data / name) for name in sources]
    reporter, choice = Reporter(note=notes.append), Choice(**options)
    return find_media(whole, media, reporter, allow_pipe, choice), notes


def keys(found: FoundMedia) -> list[str]:
    return [item.key for item in found.inputs]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["tars"], ["0", "1", "sub/2"]),
        (["tars/0.tar"], ["0"]),
        (["tars/*.tar*"], ["0", "1"]),
        (["tars/{0.tar,1.tar.gz}"], ["0", "1"]),
        (["mixed/*.tar", "tars"], ["mixed/0", "mixed/1", "tars/0", "tars/1", "tars/sub/2"]),
        (["mixed/{0..1}.tar"], ["0", "1"]),
    ],
)
def test_tars(data, sources, expected):
    found, notes = find(data, *sources)
    assert (keys(found), found.media, found.packed, found.left_out) == (expected, "images", True, 0)
    assert found.inputs.packed and notes == []
    assert find(data, *sources, media="images")[0].packed


def test_tars_hold_what_is_asked_for(data):
    pytest.importorskip("av")
    found, _ = find(data, "tars", media="clips")
    assert (found.packed, found.media) == (True, "clips")


def test_list_of_tars(data):
    (data / "list.txt").write_text("tars/0.tar\nmixed/0.tar\n")
    assert keys(find_media([f"@{data}/list.txt"], "auto")) == ["mixed/0", "tars/0"]


def test_tars_in_remote_storage(data):
    url, memory = f"memory://{uuid.uuid4().hex}", fsspec.filesystem("memory")
    for i in range(3):
        memory.pipe(f"{url}/t/{i}.tar", b"x")
    for source in (f"{url}/t", f"{url}/t/*.tar", f"{url}/t/{{0..2}}.tar"):
        found, _ = find(data, source)
        assert (keys(found), found.packed) == (["0", "1", "2"], True)
        assert [item.path for item in found.inputs] == [f"{url}/t/{i}.tar" for i in range(3)]
    both = keys(find(data, f"{url}/t/0.tar", "tars/0.tar")[0])
    assert len(set(both)) == 2 and any(key.endswith("tars/0") for key in both)
    memory.rm(url, recursive=True)


def test_tars_of_commands(data):
    found, _ = find(data, "pipe:cat {0..1}.tar", allow_pipe=True)
    assert (keys(found), found.packed) == (["0", "1"], True)
    with pytest.raises(UsageError, match="--allow-pipe"):
        find(data, "pipe:cat 0.tar")


@pytest.mark.parametrize("sources", [["mixed"], ["mixed/*"], ["mixed/a.jpg", "tars"]])
def test_tars_among_pictures_are_left_out_and_told(data, sources):
    found, notes = find(data, *sources)
    assert (keys(found), found.media, found.packed) == (["a"], "images", False)
    assert found.left_out == (3 if "tars" in sources else 2)
    assert f"{found.left_out} tars are left out" in notes[0]
    assert "name them: '" in notes[0] and "/*.tar'" in notes[0]


def test_what_is_left_out_gives_no_key(data):
    found, notes = find(data, "all")
    assert (keys(found), found.left_out, len(notes)) == (["a"], 2, 2)
    assert "1 tar is left out" in notes[0] and "1 video file" in notes[1]


def test_tars_among_clips_are_left_out(data):
    pytest.importorskip("av")
    found, notes = find(data, "clips")
    assert (keys(found), found.media, found.left_out) == (["a", "b"], "clips", 1)
    assert "1 tar is left out" in notes[0]


@pytest.mark.parametrize(
    "sources",
    [["mixed/*.tar", "pictures"], ["tars/0.tar", "pictures/a.jpg"], ["mixed/{a.jpg,0.tar}"]],
)
def test_tars_named_together_with_pictures_are_refused(data, sources):
    with pytest.raises(UsageError, match=r"0\.tar is a tar of samples, named together"):
        find(data, *sources)


def test_tars_and_pictures_in_one_list_are_refused(data):
    (data / "list.txt").write_text("tars/0.tar\npictures/a.jpg\n")
    with pytest.raises(UsageError, match="is a tar of samples"):
        find_media([f"@{data}/list.txt"], "auto")


def test_a_command_together_with_pictures_is_refused(data):
    with pytest.raises(UsageError, match="is a tar of samples"):
        find(data, "pictures", "pipe:make-one", allow_pipe=True)


def test_all_that_is_left_out_is_told(data):
    (data / "all/photo").write_bytes(b"\xff\xd8\xff\xe0")
    for name in ("b.svg", "c.zip", "d.txt", ".e"):
        (data / "all" / name).touch()
    found, notes = find(data, "all")
    assert (keys(found), found.left_out) == (["a", "photo"], 2)
    by = {".mp4": 1, ".svg": 1, ".tar": 1, ".txt": 1, ".zip": 1, "hidden_files": 1}
    assert found.left_out_by == by
    assert notes[2:] == [
        "Not taken as inputs: 1 .svg (pictures of a format that is not supported); 1 .zip"
        " (archives: unpack them first); 1 hidden file; 1 other file (.txt)."
    ]


def test_what_belongs_to_an_input_is_not_left_out(data):
    for name in ("a.txt", "a.json", "other.txt", "metadata.jsonl", "captions.json"):
        (data / "pictures" / name).touch()
    found, notes = find(data, "pictures")
    assert found.left_out_by == {".txt": 1}
    assert notes == ["Not taken as inputs: 1 other file (.txt)."]
    (data / "pictures/other.txt").unlink()
    found, notes = find(data, "pictures", limit=1)
    assert (found.left_out_by, notes) == (
        {"over_limit": 1},
        ["--limit takes the first 1 of 2 inputs."],
    )


def test_patterns_leave_out_nothing_that_belongs_to_an_input(data):
    for name in ("a.txt", "b.txt", "metadata.csv"):
        (data / "pictures" / name).touch()
    found, notes = find(data, "pictures", include=("*a.jpg",))
    assert found.left_out_by == {"excluded": 2}
    assert notes == ["Not taken as inputs: 2 files by --include or --exclude."]


def test_a_text_counts_as_left_out_where_the_job_reads_none(data):
    (data / "pictures/a.txt").touch()
    (data / "pictures/metadata.jsonl").touch()
    found, _ = find(data, "pictures", texts=None)
    assert found.left_out_by == {".jsonl": 1, ".txt": 1}


def test_what_lies_beside_tars_belongs_to_none(data):
    (data / "tars/0.json").touch()
    assert find(data, "tars")[0].left_out_by == {".json": 1}


def test_captions_of_another_suffix_are_not_opened(data, monkeypatch):
    def refuse(data):
        raise AssertionError("a caption was opened")

    (data / "pictures/a.wording").write_text("a cat")
    monkeypatch.setattr(find_media_module, "picture_by_bytes", refuse)
    found, _ = find(data, "pictures", texts=caption_rule("wording"))
    assert found.left_out_by == {}


def test_pictures_that_an_extra_would_bring_are_told_with_it(data, monkeypatch):
    unread = {".heic": "pip install 'latentcli[heif]' reads them"}
    monkeypatch.setattr(find_media_module, "UNREAD", unread)
    monkeypatch.setattr(left_out, "UNREAD", unread)
    monkeypatch.setitem(find_media_module.SUFFIXES, "auto", frozenset({".jpg"}))
    (data / "pictures/c.heic").touch()
    _, notes = find(data, "pictures")
    assert "1 .heic (pip install 'latentcli[heif]' reads them)" in notes[0]


def test_pictures_beside_clips_are_counted(data):
    pytest.importorskip("av")
    found, _ = find(data, "all", media="clips")
    assert (keys(found), found.left_out_by) == (["a"], {".jpg": 1, ".tar": 1})


def test_a_limit_takes_the_first_keys(data):
    found, notes = find(data, "pictures", "mixed", "all/a.jpg", limit=2)
    assert keys(found) == ["all/a", "mixed/a"]
    assert found.inputs.anchor == str(data) and len(found.inputs.files) == 2
    assert found.left_out_by == {".tar": 2, "over_limit": 2}
    assert notes[-1] == "--limit takes the first 2 of 4 inputs."
    assert find(data, "pictures", limit=2)[0].left_out_by == {}
    packed, _ = find(data, "tars", limit=2)
    assert (keys(packed), packed.packed, packed.inputs.packed) == (["0", "1"], True, True)


def test_patterns_choose_among_files_of_every_kind(data):
    found, notes = find(data, "all", exclude=("*.tar",), include=("a.*", "*.gif"))
    assert (keys(found), found.left_out_by) == (["a"], {".mp4": 1, "excluded": 1})
    assert "--include *.gif matches nothing in the sources." in notes
    assert keys(find(data, "mixed", include=("*.tar",))[0]) == ["0", "1"]
    with pytest.raises(UsageError, match="found: 2 files by --include or --exclude"):
        find(data, "pictures", include=("*.gif",))
    with pytest.raises(UsageError, match="--include and --exclude leave none of 1 files"):
        find(data, "mixed/a.jpg", exclude=("a*",))


@pytest.mark.parametrize("name", ["list", "-"])
def test_lists_with_any_names(data, monkeypatch, name):
    odd = [" spaces .jpg", "# no comment.jpg", "new\nline.jpg"]
    for each in odd:
        (data / "pictures" / each).touch()
    listed = b"".join(f"pictures/{each}\0".encode() for each in (*odd, "a.jpg"))
    (data / "list").write_bytes(listed)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    monkeypatch.chdir(data)
    found = find_media([f"@{name}"], "auto", choice=Choice(null=True)).inputs
    expected = [f"{data}/pictures/{each}" for each in (*odd, "a.jpg")]
    assert sorted(item.path for item in found) == sorted(expected)
    assert found.anchor == f"{data}/pictures"


def test_a_list_on_standard_input(data, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.jpg\n# b\nb.png\n")))
    monkeypatch.chdir(data / "pictures")
    assert keys(find_media(["@-"], "auto")) == ["a", "b"]
    with pytest.raises(UsageError, match="the list - names no file"):
        find_media(["@-"], "auto")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match=r"standard input, which is closed.*find"):
        find_media(["@-"], "auto")


def test_how_lists_end_their_names_is_told(data):
    (data / "list").write_bytes(b"pictures/a.jpg\0pictures/b.png\0")
    with pytest.raises(UsageError, match=r"find -print0 writes it, needs --null \(-0\)"):
        find_media([f"@{data}/list"], "auto")
    with pytest.raises(UsageError, match=r"--null \(-0\) says how lists end"):
        find(data, "pictures", null=True)
    (data / "empty").write_bytes(b"\0\0")
    with pytest.raises(UsageError, match="needs paths that end with a NUL"):
        find_media([f"@{data}/empty"], "auto", choice=Choice(null=True))


def test_many_that_are_not_opened_are_told(data, monkeypatch):
    monkeypatch.setattr("latentcli.shards.sources.local.LOCAL_LIMIT", 4)
    monkeypatch.setattr("latentcli.shards.sources.heads.SAMPLE", 2)
    for i in range(6):
        (data / f"pictures/{i}").touch()
    _, notes = find(data, "pictures")
    assert notes[1].startswith("4 files without the suffix of a picture were not opened")


def test_closed_folders_are_named(data, monkeypatch):
    whole = os.scandir

    def scandir(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, notes = find(data, "tars")
    assert (keys(found), found.left_out_by) == (["0", "1"], {"unreadable_folders": 1})
    assert notes == [
        "1 folder cannot be listed by this user, so it is not known what is in there:"
        f" {data}/tars/sub."
    ]


def test_folder_of_nothing(data):
    with pytest.raises(UsageError, match=r"\.jpg, .*\.tar, .* or one of \d+ others"):
        find(data, "none")


def test_names():
    assert (
        TarReader.owns("x/A.TAR")
        and TarReader.owns("a.tar.gz")
        and TarReader.owns("https://h/a.tar?x=1.jpg")
    )
    assert (
        TarReader.owns("pipe:cat x")
        and not TarReader.owns("a.jpg")
        and not TarReader.owns("https://h/a.jpg?x=.tar")
    )
    assert is_clip("a.MP4") and not is_clip("a.tar")
