"""Decides whether a job's networks are compiled, and refuses where that cannot be."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import TypeVar

import torch

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.settings.model import CompileSettings, MemorySettings
from latentcli.models.base import Autoencoder
from latentcli.models.kernels.ops import has_triton

Given = TypeVar("Given")

RECOMPILES = 1024
"""Shapes and models that torch.compile keeps before it would fall back to eager in silence."""
MOST_SIZES = 8
"""Sizes of pictures that a job has code for: each takes a compiler up to a minute."""
GAINING: Mapping[tuple[str, str], int] = {("cpu", "tiny"): 2**35}
"""(Kind of device, family) to the pixels of a job from which auto compiles.

Measured on a processor with AVX512-BF16, at 256x256: networks of the tiny family, which have no
fast form, became 1.17 to 1.20 times as fast in float32 and 1.32 times in bfloat16, for 10 to 40 s
of compiling and 0.8 s saved per million pixels and core. So many pixels save several times that on
64 cores. Fast forms lost (0.90 to 0.94 times in bfloat16) or gained nothing (0.99 to 1.07 times in
float32), and no GPU was measured."""
GIVEN = "--compile is on (given, or kept from the existing store)"
OR_ELSE = "leave out --compile (and use another -o if the store exists)"


def code_of(call: Callable[..., Given]) -> Callable[..., Given]:
    """What torch.compile makes of a call, shape by shape.

    None of it is chosen by timing, so the same machine makes the same code every time.
    """
    made: Callable[..., Given] = torch.compile(call, dynamic=False, options={"deterministic": True})
    return made


def gains(accelerator: Accelerator, family: str, pixels: int | None) -> bool:
    """What --compile auto means for a job of so many pixels; None where nobody knows how many.

    Nothing that is timed has a say in it, and no number of cores: the same command gives the same
    bytes.
    """
    least = GAINING.get((accelerator.name, family))
    return least is not None and (pixels or 0) >= least and missing(accelerator) is None


def on_for(
    job: CompileSettings,
    accelerator: Accelerator,
    family: str,
    sizes: Sequence[tuple[int, int]],
    count: int | None,
) -> bool:
    """Whether a job of so many pictures of these sizes has its networks compiled."""
    if job.compile != "auto":
        return job.compile == "on"
    limited = isinstance(job, MemorySettings) and job.max_memory is not None
    if limited or not 0 < len(sizes) <= MOST_SIZES:
        return False
    return gains(accelerator, family, pixels_of(sizes, count))


def missing(accelerator: Accelerator) -> str | None:
    """What torch's compiler needs on a device and is not there, with what to do; None where all is.

    It writes C++ for a CPU, and for a GPU Triton's language, which needs a C compiler.
    """
    if accelerator.gpu and not has_triton():
        return "Triton, which is not installed: pip install triton"
    usual = "clang++" if sys.platform == "darwin" else "g++"
    names = ("CC", "gcc", "clang", "cc") if accelerator.gpu else ("CXX", usual)
    variable, *programs = names
    found = [os.environ[variable]] if os.environ.get(variable) else programs
    if not any(map(which, found)):
        language = "C" if accelerator.gpu else "C++"
        return (
            f"a {language} compiler, and there is no {found[0]}: install one (on Debian and Ubuntu:"
            f" apt install g++), or name it in ${variable}"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h, which is not there: install Python's headers (on Debian: python3-dev)"
    return None


def check_compiler(compile: str, accelerator: Accelerator, max_memory: int | None = None) -> None:
    """UsageError where --compile is on and this machine, or --max-memory, does not allow it."""
    if compile != "on":
        return
    if max_memory is not None:
        raise UsageError(
            f"{GIVEN}, and --max-memory computes large pictures in parts of many shapes, and each"
            " shape would have to be compiled: leave one of them out."
        )
    lacking = missing(accelerator)
    if lacking is not None:
        raise UsageError(f"{GIVEN}, and needs {lacking}; or {OR_ELSE}.")


def known_sizes(preprocess: PreprocessSpec) -> Sequence[tuple[int, int]]:
    """(W, H) of all pictures that a job brings to size; none where nobody knows them beforehand."""
    if preprocess.size is not None:
        return (preprocess.size,)
    return () if preprocess.buckets is None else preprocess.buckets.table


def check_sizes(sizes: Sequence[tuple[int, int]], advice: str) -> None:
    """UsageError where code for each of these sizes cannot be made; `advice` is how to have less.

    Which sizes are compiled must not depend on which picture comes first: it is all, or none.
    """
    if not sizes:
        raise UsageError(
            f"{GIVEN}, and compiling needs picture sizes that are known beforehand; here they are"
            f" not. {advice}, or {OR_ELSE}."
        )
    if len(sizes) > MOST_SIZES:
        raise UsageError(
            f"{GIVEN}, and each of {len(sizes)} picture sizes would be compiled; at most"
            f" {MOST_SIZES} are allowed. {advice}, or {OR_ELSE}."
        )


def refuse_temporal(model: Autoencoder, *, clips: bool) -> None:
    """UsageError where a model decodes the frames of a clip together."""
    if clips and model.is_video:
        raise UsageError(
            f"{GIVEN}, and {model.info.name} decodes the frames of a clip together, which cannot"
            " be compiled: leave out --compile."
        )


def failed(name: str, what: str, error: Exception, verb: str = "run") -> LatentCliError:
    """The error for what torch's compiler cannot compile."""
    return LatentCliError(
        f"torch.compile failed for {name} in {what}: {reason(error)}. Leave out --compile to"
        f" {verb} the eager network."
    )


def reason(error: Exception) -> str:
    """The line of a compiler's error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if "rror" in line or "ound" in line), None)
    return (found or (lines[0] if lines else type(error).__name__)).rstrip(".")[:300]


def pixels_of(sizes: Iterable[tuple[int, int]], count: int | None) -> int | None:
    """The least pixels that so many pictures of these sizes have; None where that is not known."""
    each = min((width * height for width, height in sizes), default=0)
    return None if count is None or not each else each * count
