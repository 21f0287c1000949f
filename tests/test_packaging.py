"""The wheel: built from the sdist, installed where no checkout is near, and used there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("build", reason="the dev extra is not installed")
pytest.importorskip("hatchling", reason="the dev extra is not installed")

ROOT = Path(__file__).resolve().parent.parent
PRESETS = {path.stem for path in (ROOT / "configs" / "models").glob("*.toml")}
BUNDLED = ("fcdm_nano", "linear16")
MAX_WHEEL_BYTES = 15_000_000


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """stdout of a command that must succeed; none of our own variables reach it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LATENTCLI_", "PYTHON", "HF_"))
    }
    ran = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, f"{' '.join(map(str, words))}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist, so that a file which the sdist lacks is missed here."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    run(*build, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, and a folder far from the checkout."""

    venv: Path
    elsewhere: Path

    def latentcli(self, *words: str | Path) -> str:
        return run(
            self.venv / "bin" / "latentcli",
            *words,
            cwd=self.elsewhere,
            HF_HUB_OFFLINE="1",
            HF_HOME=str(self.elsewhere / "hub"),
        )


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    """The dependencies are borrowed from the tests' own environment: PyTorch is large."""
    folder = tmp_path_factory.mktemp("clean")
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    # A plain path in a .pth: the checkout's own editable link, a .pth there, is not followed.
    site = Path(
        run(python, "-c", "import site; print(*site.getsitepackages())", cwd=folder).strip()
    )
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return Installed(venv, folder)


def test_wheel_holds_what_the_package_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for preset in PRESETS:
        assert f"latentcli/configs/models/{preset}.toml" in names
    for model in BUNDLED:
        for name in ("config.json", "model.safetensors"):
            assert f"latentcli/models/bundled/{model}/{name}" in names
    assert "latentcli/py.typed" in names
    jobs = {path.name for path in (ROOT / "configs" / "jobs").glob("*.toml")}
    assert jobs == {Path(n).name for n in names if n.startswith("latentcli/configs/jobs/")}


def test_wheel_holds_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"latentcli"}
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


def test_installed_package_is_not_the_checkout(installed):
    python = installed.venv / "bin" / "python"
    told = run(python, "-c", "import latentcli; print(latentcli.__file__)", cwd=installed.elsewhere)
    assert Path(told.strip()).is_relative_to(installed.venv)


def test_installed_tool_lists_the_presets(installed):
    table = installed.latentcli("models")
    rows = json.loads(installed.latentcli("models", "--json"))
    assert {row["name"] for row in rows} == PRESETS
    assert all(name in table for name in PRESETS)
    status = {row["name"]: row["weights"] for row in rows}
    assert {status.pop(model) for model in BUNDLED} == {"bundled"}
    assert set(status.values()) == {"missing"}  # offline, and nothing is cached there


def test_installed_tool_encodes_a_photograph(installed):
    data = pytest.importorskip("skimage", reason="the test extra is not installed").__path__[0]
    photograph = Path(data, "data", "coffee.png")
    words = ("encode", photograph, "--size", "128", "-o", "coffee.latents", "--json")
    document = json.loads(installed.latentcli(*words))
    assert (document["encoded"], document["failed"]) == (1, 0)
    shard = installed.elsewhere / "coffee.latents" / "shards" / "000000.safetensors"
    assert shard.stat().st_size > 128 * 8 * 8 * 2
