"""Pictures in a repository of the Hub as a source."""

from __future__ import annotations

import jobkit
from harness.hub import hub_server, point_at
from harness.hub_routes import Blob, Repository


def test_a_repository_is_a_source(mixed, tmp_path, model, monkeypatch):
    files = {p.relative_to(mixed).as_posix(): p.read_bytes() for p in mixed.rglob("*.*")}
    with hub_server() as hub:
        point_at(hub, monkeypatch, tmp_path / "hf", None)
        found = hub.repositories["org/pictures"] = Repository(private=False)
        found.commit("main", {f"data/{n}": Blob(d, False) for n, d in files.items()}, "pictures")
        document = jobkit.encode("hf://datasets/org/pictures/data", tmp_path / "there", model)
        asked = hub.count("^GET .*/resolve/")
        # Nothing is read again where nothing changed.
        again = jobkit.encode("hf://datasets/org/pictures/data", tmp_path / "there", model)
        assert again["encoded"] == 0 and hub.count("^GET .*/resolve/") == asked
    assert document["encoded"] == 23 and document["failed"] == 2
    assert asked <= 2 * len(files)
    jobkit.encode(mixed, tmp_path / "here", model)
    there, here = (jobkit.latents_of(tmp_path / name) for name in ("there", "here"))
    assert there.keys() == here.keys() and all((there[k] == here[k]).all() for k in here)
