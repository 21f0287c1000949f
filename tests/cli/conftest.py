"""What the command-line tests share: a way to run one, a toy model and a few small pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clikit import Result, Run

from latentcli.cli.app import main


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LATENTCLI_") or name == "COLUMNS":
            monkeypatch.delenv(name)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of config.json and model.safetensors: a random network of 130,000 values."""
    import torch
    from safetensors.torch import save_file

    from latentcli.models.fcdm import FAMILY

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    config = {"in_channels": 3, "patch_size": 16, **FAMILY.tiny}
    (folder / "config.json").write_text(json.dumps(config))
    state = FAMILY.build(FAMILY.tiny, None).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a folder of four small pictures, in two sizes; no network."""
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for index, size in enumerate([(48, 64), (48, 64), (80, 48), (80, 48)]):
        gradient = Image.linear_gradient("L").resize(size)
        Image.merge("RGB", (gradient, gradient.rotate(90 * index), gradient)).save(
            folder / f"picture {index}.png"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield folder


@pytest.fixture
def toy(tiny_model: Path) -> list[str]:
    """Options that make an encode job a matter of milliseconds."""
    return ["--model", str(tiny_model), "--workers", "0", "--no-self-check", "--device", "cpu"]


@pytest.fixture
def store(cli: Run, pictures: Path, toy: list[str]) -> Path:
    """A small store in the working directory."""
    made = cli("encode", pictures, *toy, "--size", 32, "-o", "toy.latents")
    assert made.code == 0, made.err
    return Path("toy.latents")
