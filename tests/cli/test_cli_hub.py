"""`latentcli card` and `latentcli push` on the command line: what they print, and how they end."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from clikit import Run
from harness.hub import hub_server, point_at

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "sharing.md").read_text(encoding="utf-8")


@pytest.fixture
def store(cli: Run, pictures, tiny_model, tmp_path):
    path = tmp_path / "cats.latents"
    words = ("--model", tiny_model, "--resize", "none", "--device", "cpu", "--no-self-check")
    assert cli("encode", pictures, *words, "-o", path, "--quiet").code == 0
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server() as server:
        point_at(server, monkeypatch, tmp_path / "hf", "hf_writer")
        yield server


def test_a_card_is_written_or_printed(cli: Run, store) -> None:
    printed = cli("card", store, "-o", "-")
    assert printed.code == 0 and printed.out.startswith("---\nlicense: unknown\n")
    assert not (store / "README.md").exists()
    written = cli("card", store)
    assert f"Card: {store}/README.md, with 4 pictures." in " ".join(written.err.split())
    assert "Its licence is not filled in" in written.err and written.out == ""
    text = (store / "README.md").read_text()
    assert [line for line in text.splitlines() if "<img" not in line]
    again = cli("card", store, "--license", "mit", "--json")
    assert again.document["license"] == "mit" and again.document["pictures"] == 4
    (store / "README.md").write_text("# Mine\n")
    refused = cli("card", store)
    assert refused.code == 1 and "--force" in refused.err
    assert cli("card", store, "--force").code == 0


def test_push_and_its_exit_codes(cli: Run, store, hub, monkeypatch) -> None:
    done = cli("push", store, "org/cats", "--json")
    document = done.document
    assert done.code == 0 and document["commits"] == 1 and document["uploaded"] > 5
    assert document["commit"] in hub.repositories["org/cats"].commits
    again = cli("push", store, "org/cats")
    assert again.code == 0 and "org/cats is up to date" in " ".join(again.err.split())
    shown = cli("inspect", "hf://datasets/org/cats")
    assert shown.code == 0 and "4 with a place that the store does not say" in shown.out
    assert cli("push", store, "cats").code == 2
    unnamed = cli("push", store)
    assert unnamed.code == 2 and "Give the repository as OWNER/NAME" in unnamed.err
    assert cli("push", store / "none", "org/cats").code == 2
    next((store / "shards").glob("*.safetensors")).unlink()
    partial = cli("push", store, "org/cats")
    assert partial.code == 3 and "--allow-partial" in partial.err
    monkeypatch.setenv("HF_TOKEN", "")
    refused = cli("push", store, "org/cats")
    assert refused.code == 1 and "hf auth login" in refused.err


def test_the_page_is_true(cli: Run, hub, photographs, tmp_path, monkeypatch) -> None:
    """Its commands and its Python run, and its store is what comes back."""
    import latentcli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photographs)
    lines = re.findall(r"^    latentcli (.*)$", PAGE, re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    assert [words[0] for words in commands] == ["encode", "card", "push"]
    for words in commands:
        done = cli(*words)
        assert done.code == 0, done.err
    assert hub.repositories["someone/photos-latents"].private
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(source, "sharing.md", "exec"), names)
    local = latentcli.LatentDataset("photos.latents")
    assert [item["key"] for item in names["dataset"]] == local.keys  # type: ignore[attr-defined]
    flag = r"(?<![\w-])--[a-z][a-z-]+"
    known = set(re.findall(flag, cli("push", "--help").out + cli("card", "--help").out))
    named = set(re.findall(flag, PAGE))
    of_others = {"--size", "--samples-per-shard", "--repo-type", "--local-dir"}
    assert named - of_others <= known
