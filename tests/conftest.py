"""Fixtures that every test may use: shared data beside the checkout, a GPU, real photographs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LATENTCLI_SHARED", ROOT.parent / "shared"))

# Toy networks, and the processes that tests start, are faster on one thread, above all where tests
# run beside each other. torch reads it when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Networks run in the dtype that every machine has, where a test does not say another, so that
# figures do not depend on the processor. torch reads this when it is loaded, too.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
# Tables in a pipe are as wide as they need to be, unless these limit them. Python's readline sets
# both for the processes that pytest starts.
for variable in ("COLUMNS", "LINES"):
    os.environ.pop(variable, None)
# How long an example takes says more of the machine than of the code.
settings.register_profile("latentcli", deadline=None)
settings.load_profile("latentcli")

# A shell starts what runs in its background with Ctrl-C ignored, and children inherit that.
with contextlib.suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first: processes that share the files then end at about one time."""
    tests = ROOT / "tests"
    items.sort(
        key=lambda item: item.path.parent != tests and tests / "jobs" not in item.path.parents
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> None:
    """Keeps that order: pytest-xdist would begin with the files of most tests."""
    config.option.loadscopereorder = False


@pytest.fixture(autouse=True)
def loud_log():
    """A quiet command line in one test leaves no test after it deaf in the same process."""
    logging.getLogger("latentcli").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and photographs; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED.name}/ folder beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the photographs that ship inside scikit-image, at most 256 pixels a side."""
    from PIL import Image

    found = find_spec("skimage")
    assert found is not None and found.origin is not None
    source = Path(found.origin).parent / "data"
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png"):
        if (source / name).is_file():
            with Image.open(source / name) as image:
                image.thumbnail((256, 256))
                image.save(folder / f"{Path(name).stem}.png")
    return folder


@pytest.fixture
def cuda() -> str:
    """The CUDA device; without one the test is skipped, or fails where CUDA is required."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get("LATENTCLI_REQUIRE_CUDA") == "1":
        pytest.fail("LATENTCLI_REQUIRE_CUDA=1, but torch sees no CUDA device")
    pytest.skip("no CUDA device")
