"""What the tests of --compile share: torch's compiler without the part that takes it long.

It traces and guards as always, and its graphs are run by torch's own operators: no program writes
or compiles anything. Only torch is played; the tests that are slow have the whole compiler.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """torch.compile stops at its graphs; what is given tells how many of them it made since."""
    import torch._dynamo

    whole = torch.compile
    made = 0

    def graph(module: Any, _: Any) -> Any:
        nonlocal made
        made += 1
        return module.forward

    def compile(call: Any, *, dynamic: bool, options: object) -> Any:
        assert dynamic is False and options == {"deterministic": True}
        return whole(call, dynamic=False, backend=graph)

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", compile)
    yield lambda: made
    torch.compiler.reset()


def need_compiler() -> None:
    """Skips a test where nothing compiles C++."""
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
