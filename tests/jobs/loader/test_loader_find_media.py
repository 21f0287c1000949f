"""What the sources of a job are taken for: pictures, clips, or tars of one of these."""

from __future__ import annotations

import uuid

import fsspec
import pytest

from latentcli.core.errors import UsageError
from latentcli.jobs.loader.find_media import FoundMedia, find_media, is_clip
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


def find(data, *sources: str, media: str = "auto", **options: bool) -> tuple[FoundMedia, list[str]]:
    notes: list[str] = []
    whole = [name if ":" in name else str(data / name) for name in sources]
    return find_media(whole, media, Reporter(note=notes.append), **options), notes


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


def test_folder_of_nothing(data):
    with pytest.raises(UsageError, match=r"holds no inputs.*\.tar"):
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
