"""Holds the options of a model that several jobs share, each with its help, choices and bounds.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from latentcli.core.byte_size import byte_size
from latentcli.core.options import option
from latentcli.jobs.runtime.given_names import check_model, check_weights
from latentcli.models.presets import preset_names

MODEL = (
    "Preset (see latentcli models), Hub id, or folder. A folder holds config.json and"
    " model.safetensors."
)

T = TypeVar("T")


def model_option(default: T, help: str, exists: Callable[[str], object] = check_model) -> T:
    """The --model of a job, or several."""
    return option(
        default,
        help,
        section="model",
        daily=True,
        key="model",
        flags=("--model", "-m"),
        exists=exists,
        offers=preset_names,
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """With which weights a model is run, where and how."""

    weights: str | None = option(
        None,
        "File or folder of the weights. Default: $LATENTCLI_WEIGHTS/<preset>/, then the Hugging"
        " Face cache, then the Hub.",
        section="model",
        metavar="PATH",
        variable=False,  # $LATENTCLI_WEIGHTS names a folder of folders, one per preset
        exists=check_weights,
    )
    revision: str | None = option(
        None,
        "Branch, tag or commit of the Hub repository. Default: the preset's.",
        section="model",
        metavar="REV",
    )
    device: str = option(
        "auto",
        "auto (default: a GPU if there is one), cpu, cuda or cuda:N.",
        section="model",
        panel="batch",
        daily=True,
        metavar="DEVICE",
        offers=lambda: ("auto", "cpu", "cuda"),
    )
    dtype: str = option(
        "auto",
        "Precision of the network: auto (default), bf16 or fp32. auto is bf16 on a GPU that"
        " supports it and on a CPU with instructions for it, else fp32.",
        section="model",
        panel="batch",
        choices=("auto", "bf16", "fp32"),
    )


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """Whether a model's networks are compiled."""

    compile: str = option(
        "auto",
        "on: run the networks compiled by torch.compile, for the sizes of --size or of a few"
        " buckets. Each size takes up to a minute, and needs a compiler. off: do not. auto"
        " (default): only in very large jobs of a model that was measured to be faster compiled.",
        section="model",
        panel="batch",
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How much memory a model may take."""

    max_memory: str | None = option(
        None,
        "Device memory that the model may take, with its weights and a batch, such as 4GiB."
        " Batches get smaller; an image that does not fit by itself is computed in parts, where"
        " the model allows it. Default: no limit.",
        section="model",
        panel="batch",
        check=lambda text: byte_size(text, "--max-memory"),
        metavar="SIZE",
    )

    @property
    def most_bytes(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else byte_size(self.max_memory, "--max-memory")


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How a diffusion decoder is run; other decoders ignore it."""

    steps: int = option(
        1, "Decoder steps (NFE). Default: 1.", section="decode", daily=True, least=1
    )
    sampler: str = option(
        "ddim",
        "Sampler of the decoder: ddim (default) or dpmpp_2m.",
        section="decode",
        choices=("ddim", "dpmpp_2m"),
    )
    schedule: str = option(
        "linear",
        "Spacing of the steps: linear (default) or cosine.",
        section="decode",
        choices=("linear", "cosine"),
    )
    pdg: bool = option(False, "Use path-drop guidance. Default: off.", section="decode")
    pdg_strength: float = option(
        2.0, "Strength of path-drop guidance. Default: 2.0.", section="decode", least=0, metavar="X"
    )
    seed: int = option(
        0,
        "Seed of the decoder's noise, which also depends on an image's key. Default: 0.",
        section="decode",
        metavar="SEED",
    )
    num_frames: int | None = option(
        None,
        "Frames of a clip that a temporal decoder sees at once. Default: the model's own number.",
        section="decode",
        least=1,
    )
