"""Where the weights of an extractor are looked for, how they may be kept, and what is refused."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import asdict

import pytest
import torch
from harness.videomae import TINY, tiny_folder, tiny_state

from latentcli.core.errors import UsageError, WeightsError
from latentcli.jobs.video.extractor import FILE, NAME, find_weights, load_extractor
from latentcli.models.weights import file_sha256, read_state_dict

CPU = torch.device("cpu")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No weights anywhere, and no network."""
    monkeypatch.delenv("LATENTCLI_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def same(found: dict[str, torch.Tensor]) -> bool:
    wanted = tiny_state()
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nest", [None, "module", "model", "state_dict"])
def test_however_the_tensors_are_nested(nest, zipped, tmp_path):
    state = tiny_state()
    torch.save(
        {nest: state, "epoch": 3, "args": argparse.Namespace(lr=1.0)} if nest else state,
        tmp_path / FILE,
        _use_new_zipfile_serialization=zipped,
    )
    assert same(read_state_dict(tmp_path / FILE))


def test_wrapped_names_and_safetensors(tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in tiny_state().items()}
    torch.save({"model": wrapped}, tmp_path / "w.pth")
    assert same(read_state_dict(tmp_path / "w.pth"))
    assert same(read_state_dict(tiny_folder(tmp_path / "f") / "model.safetensors"))


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


def test_files_that_are_refused(tmp_path):
    torch.save({"module": tiny_state(), "trap": Trap()}, tmp_path / "trap.pth")
    torch.save({"module": {"a": 3}}, tmp_path / "number.pth")
    torch.save({}, tmp_path / "nothing.pth")
    torch.save(tiny_state(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-300])
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name, told in (
        ("trap", "would run code from the file. It was not read"),
        ("number", "these entries are not tensors: a"),
        ("nothing", "it must be a table of tensors"),
        ("cut", "is not a complete PyTorch file"),
        ("pointer", "is a Git LFS pointer"),
    ):
        with pytest.raises(WeightsError, match=told):
            read_state_dict(tmp_path / f"{name}.pth")


def test_a_file_alone_is_the_giant(tmp_path):
    torch.save({"module": tiny_state()}, tmp_path / FILE)
    with pytest.raises(WeightsError, match=r"which has 526 tensors; the file has 32:"):
        load_extractor(str(tmp_path / FILE), CPU, 16, 224)


def test_a_folder_with_sizes(tmp_path):
    folder = tiny_folder(tmp_path / "w")
    found = load_extractor(str(folder), CPU, 16, 56)
    assert found.network.config == TINY
    assert (found.name, found.sha256) == (
        "videomae_v2_24x2",
        file_sha256(folder / "model.safetensors"),
    )
    with pytest.raises(UsageError, match="--frames is 3"):
        load_extractor(str(folder), CPU, 3, 56)
    for config, told in (
        ({**asdict(TINY), "widht": 3}, "unexpected keyword argument 'widht'"),
        ({"dim": 24}, "missing 4 required"),
        ({**asdict(TINY), "heads": 5}, "dim must be a multiple of heads"),
        ({**asdict(TINY), "depth": "2"}, "must be a whole number"),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            WeightsError, match=f"does not describe a VideoMAE V2 network: .*{told}"
        ):
            load_extractor(str(folder), CPU, 16, 56)


def test_weights_by_the_variable_and_the_cache(offline, tmp_path, monkeypatch):
    commit = "0" * 40
    home = tmp_path / "hub" / "models--OpenGVLab--InternVideoMAE_models"
    folder = home / "snapshots" / commit / "mae-g"
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    torch.save({"module": tiny_state()}, folder / FILE)
    (folder / "config.json").write_text(json.dumps(asdict(TINY)))
    assert find_weights(None).weights_path == folder / FILE
    assert load_extractor(None, CPU, 16, 56).network.config == TINY
    shutil.copytree(folder, tmp_path / "env" / NAME)
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "env"))
    assert find_weights(None).weights_path == tmp_path / "env" / NAME / FILE


def test_no_weights_anywhere(offline, tmp_path):
    with pytest.raises(WeightsError) as told:
        load_extractor(None, CPU, 16, 224)
    lines = str(told.value).splitlines()
    assert lines[0].startswith(f"The weights of {NAME} were not found ({FILE} of OpenGVLab/")
    assert any("offline mode is on" in line for line in lines)
    ways = [line for line in lines if re.match(r"  \d\. ", line)]
    assert len(ways) == 3
    assert f"hf download OpenGVLab/InternVideoMAE_models mae-g/{FILE}`" in ways[2]
    assert not any("config.json" in line for line in lines)
    with pytest.raises(WeightsError, match="There are no weights at"):
        load_extractor(str(tmp_path / "none.pth"), CPU, 16, 224)
