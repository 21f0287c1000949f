"""Where a report may be written: into nothing, or over an earlier one; never over anything else."""

from __future__ import annotations

import pytest
from jobkit import tree

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.report_folder import FILES, MARK, PAGE, report_folder


def test_a_missing_or_empty_folder_is_taken(tmp_path):
    for name in ("new/deep", "empty"):
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        assert report_folder(str(folder)) == folder
        assert [p.name for p in folder.iterdir()] == [FILES]
    assert report_folder(f"file://{tmp_path}/url") == tmp_path / "url"


def test_an_earlier_report_is_replaced_and_so_is_an_unfinished_one(tmp_path):
    folder = report_folder(tmp_path / "report")
    (folder / FILES / "000").mkdir()
    (folder / FILES / "000" / "000000.png").write_bytes(b"old")
    for page in (True, False):
        if page:
            (folder / PAGE).write_text("old")
        report_folder(folder)
        assert sorted(p.name for p in folder.rglob("*")) == sorted([FILES, MARK])


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.tex"],
        [PAGE],
        [PAGE, f"{FILES}/holiday.jpg"],
        [PAGE, f"{FILES}/{MARK}", "notes.txt"],
        [".hidden"],
        ["a", "b", "c", "d", "e"],
    ],
)
def test_anything_else_is_refused_and_untouched(tmp_path, names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"holds other things \(.+\)\. Name a new or empty"):
        report_folder(tmp_path)
    assert tree(tmp_path) == before


def test_links_are_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / MARK).write_text("mine")
    (precious / "data").write_text("mine")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / FILES).symlink_to(precious)
    with pytest.raises(UsageError, match="holds other things"):
        report_folder(folder)
    (folder / FILES).unlink()
    report_folder(folder)
    (folder / FILES / "link").symlink_to(precious)
    report_folder(folder)
    assert sorted(p.name for p in precious.iterdir()) == [MARK, "data"]


def test_a_file_and_remote_storage_are_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        report_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="remote storage"):
        report_folder("s3://bucket/report")


def test_a_note_of_the_same_name_is_not_ours(tmp_path):
    """A site of somebody's own, which happens to have our names."""
    site = tmp_path / "site"
    (site / "files").mkdir(parents=True)
    for name in ("index.html", "files/about.txt", "files/thesis.pdf"):
        (site / name).write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        report_folder(site)
    assert [p.read_text() for p in sorted(site.rglob("*.*"))] == ["mine"] * 3
