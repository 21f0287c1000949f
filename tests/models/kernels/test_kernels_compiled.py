"""Kernels through Triton's compiler for GPUs that are not there: they fit, and nothing spills."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernelkit import PUBLISHED, SHARED_MEMORY, compiled

from latentcli.models.kernels import ops

pytest.importorskip("triton", reason="Triton has no build for this system")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def check(monkeypatch: pytest.MonkeyPatch, case: str, capability: int, folder: Path) -> None:
    """Compiles a case as it runs on GPUs of this capability."""
    from latentcli.models.kernels import launch

    monkeypatch.setattr(launch, "shares", lambda tensor: SHARED_MEMORY[capability] >= 227)
    found = compiled(case, capability, folder)
    assert found.spilled == 0
    assert 0 < found.registers < 255
    assert found.shared <= SHARED_MEMORY[capability] * 1024


def test_a_kernel_compiles_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check(monkeypatch, "norms", 90, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("capability", SHARED_MEMORY)
def test_all_kernels_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: int) -> None:
    for case in PUBLISHED:
        check(monkeypatch, case, capability, tmp_path)


def test_every_operator_is_compiled() -> None:
    assert {name for name, _ in PUBLISHED.values()} == ops.OPERATORS.keys()
