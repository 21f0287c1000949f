"""Files that a table names lie in its folder, or in the one that the user says."""

from __future__ import annotations

import pytest

from latentcli.core.errors import SampleError
from latentcli.shards.tables.paths import path_inside


@pytest.mark.parametrize(
    ("text", "folder", "root", "expected"),
    [
        ("a.png", "/d", None, "/d/a.png"),
        ("sub/./x/../a.png", "/d", None, "/d/sub/a.png"),
        ("/d/sub/a.png", "/d", None, "/d/sub/a.png"),
        ("images/a.png", "/d/lists", "/d", "/d/images/a.png"),
        ("../images/a.png", "/d/lists", "/d", "/d/images/a.png"),
        ("/x/a.png", "/d", "/x", "/x/a.png"),
        ("/x/a.png", "/d", "/", "/x/a.png"),
        ("a.png", "s3://b/d", None, "s3://b/d/a.png"),
        ("s3://b/d/e/a.png", "s3://b/d", None, "s3://b/d/e/a.png"),
        ("a.png", "s3://b/d", "/local", "/local/a.png"),
    ],
)
def test_inside(text, folder, root, expected):
    assert path_inside(text, folder, root) == expected


@pytest.mark.parametrize(
    ("text", "folder", "root"),
    [
        ("/etc/passwd", "/d", None),
        ("../a.png", "/d", None),
        ("sub/../../d2/a.png", "/d", None),
        ("/d2/a.png", "/d", None),
        ("//d/a.png", "/d", None),
        (".", "/d", None),
        ("https://example.org/a.png", "/d", None),
        ("s3://b/a.png", "/d", "/"),
        ("../../a.png", "/d/lists", "/d/images"),
        ("../other/a.png", "s3://b/d", None),
        ("/d/a.png", "s3://b/d", None),
        ("s3://b/d/../a.png", "s3://b/d", None),
        ("http://b/d/a.png", "s3://b/d", None),
    ],
)
def test_outside_is_refused(text, folder, root):
    with pytest.raises(SampleError, match=r"leads out of .*--image-root") as caught:
        path_inside(text, folder, root)
    assert caught.value.stage == "read"
