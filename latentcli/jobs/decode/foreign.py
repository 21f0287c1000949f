"""Reads latents in files of other tools, and says what a file is that cannot be read."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from latentcli.core.errors import SampleError, StoreError, UsageError
from latentcli.jobs.decode.latents import LatentSample, LatentSource
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.file import SafetensorsFile

Opener = Callable[[AnyPath, str | None], LatentSource]

SAVE = (
    "Save its tensors, [C, h, w] each, with safetensors.torch.save_file, and give that file with"
    " --model and, for latents before any scaling, --latents raw."
)
PICKLE = (
    "a file of PyTorch, which may run code when it is loaded, and so is never read. Load it where"
    f" you trust it. {SAVE}"
)
KOHYA_NAMES = "_sd.npz, _sdxl.npz, _sd3.npz, _flux.npz and _lumina.npz"

_KOHYA_LATENTS = re.compile(r"latents(_\d+x\d+)?")
_KOHYA_SIZE = re.compile(r"_\d{4,}x\d{4,}$")
_DAMAGED = (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for a damaged file, and for one that holds Python objects."""

COMFY, COMFY_MARKER = "latent_tensor", "latent_format_version_0"
COMFY_SPACES = {128: ("flux2", "whitened")}
"""(space, state) by channels where these tell them; of all others ComfyUI keeps raw latents."""
COMFY_UNMARKED = 1 / 0.18215
"""What ComfyUI multiplies latents with that have no marker, as it once stored them scaled."""


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    """Files that end in a suffix."""

    suffix: str
    open: Opener | None = None
    """Reads them; None where they cannot be read."""
    what: str = ""
    """What they are and what to do, behind "is"."""


def open_kohya(path: AnyPath, state: str | None, *, space: str, own: str) -> LatentSource:
    """The latents of an npz cache of kohya's sd-scripts; those of mirrored pictures are left out.

    `own` is the state that the trainer keeps latents of this space in. StoreError where the file
    is damaged or has none; UsageError where another `state` is asked for.
    """
    refuse_state(path, state, own)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = [name for name in arrays.files if _KOHYA_LATENTS.fullmatch(name)]
    except _DAMAGED as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
    if not found:
        raise StoreError(
            f"{path} has the name of a latent cache of kohya's sd-scripts, but holds no latents."
        )
    # <name of the picture>_<W>x<H>_sdxl.npz
    stem = _KOHYA_SIZE.sub("", path.stem.rpartition("_")[0]) or path.stem

    def samples(units: Iterable[int]) -> Iterator[LatentSample]:
        for name in (name for _ in units for name in found):
            key = stem if len(found) == 1 else f"{stem}{name.removeprefix('latents')}"
            yield LatentSample(key, partial(npz_array, path, name))

    return LatentSource(path, len(found), own, None, space, None, samples)


def refuse_state(path: AnyPath, state: str | None, own: str) -> None:
    """UsageError where --latents contradicts what is known of a file."""
    if state not in (None, own):
        raise UsageError(
            f"--latents is {state!r}, but {path} holds {own} latents, as its name and channels"
            " tell. Leave the option out."
        )


def npz_array(path: AnyPath, name: str) -> Tensor:
    """An array of numbers in an npz file; SampleError where it cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            array = arrays[name]
    except _DAMAGED as error:
        raise SampleError("read", f"{name} is damaged: {error}") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise SampleError("read", f"{name} is of {array.dtype}, which is no latent")
    return torch.from_numpy(array.astype(np.float32))


def open_comfy(path: AnyPath, state: str | None) -> LatentSource:
    """The latents that ComfyUI's SaveLatent wrote; StoreError where there are none of pictures.

    ComfyUI does not say whose they are: but for 128 channels, `space` is not known. UsageError
    where another `state` is asked for than is known.
    """
    file = SafetensorsFile(path)
    entry = file.entries.get(COMFY)
    if entry is None or len(entry.shape) != 4:
        found = "none" if entry is None else f"one of {list(entry.shape)}"
        raise StoreError(
            f"{path} should hold {COMFY} [N, C, h, w], as ComfyUI writes latents of pictures; it"
            f" has {found}."
        )
    count, channels = entry.shape[:2]
    space, own = COMFY_SPACES.get(channels, (None, state or "raw"))
    refuse_state(path, state, own)
    factor = 1.0 if COMFY_MARKER in file.entries else COMFY_UNMARKED
    keys = [path.stem] if count == 1 else [f"{path.stem}_{i:05d}" for i in range(count)]

    def load(index: int) -> Tensor:
        return file.tensor(COMFY)[index].float() * factor

    def samples(units: Iterable[int]) -> Iterator[LatentSample]:
        for index, key in ((i, key) for _ in units for i, key in enumerate(keys)):
            yield LatentSample(key, partial(load, index))

    return LatentSource(path, count, own, None, space, None, samples)


def open_tensors(file: SafetensorsFile, state: str) -> LatentSource:
    """Every tensor [C, h, w] of a file is a latent, and every [N, C, h, w] is N of them."""
    if state == "moments":
        raise UsageError("--latents moments cannot be told apart in a file that is no shard.")
    ranks = {name: len(entry.shape) for name, entry in file.entries.items()}
    wrong = [name for name, rank in ranks.items() if rank not in (3, 4)]
    if wrong or not ranks:
        found = ", ".join(f"{n} {list(file.entries[n].shape)}" for n in wrong[:3]) or "no tensor"
        raise StoreError(
            f"{file.path} is no file of latents: it has {found}; tensors must be [C, h, w] or"
            " [N, C, h, w]."
        )
    counts = {name: file.entries[name].shape[0] for name, rank in ranks.items() if rank == 4}

    def samples(units: Iterable[int]) -> Iterator[LatentSample]:
        for name in (name for _ in units for name in ranks):
            # Of no latents at all the tensor itself is the one that fails.
            if not counts.get(name):
                yield LatentSample(name, partial(file.tensor, name))
            for i in range(counts.get(name, 0)):
                yield LatentSample(f"{name}_{i:05d}", partial(item_of, file, name, i))

    count = sum(counts.get(name) or 1 for name in ranks)
    return LatentSource(file.path, count, state, None, None, None, samples)


def item_of(file: SafetensorsFile, name: str, index: int) -> Tensor:
    """One latent [C, h, w] of a tensor [N, C, h, w]."""
    return file.tensor(name)[index]


FOREIGN = (
    ForeignFormat("_sd.npz", partial(open_kohya, space="sd1", own="raw")),
    ForeignFormat("_sdxl.npz", partial(open_kohya, space="sdxl", own="raw")),
    ForeignFormat("_sd3.npz", partial(open_kohya, space="sd3", own="raw")),
    ForeignFormat("_flux.npz", partial(open_kohya, space="flux1", own="scaled")),
    ForeignFormat("_lumina.npz", partial(open_kohya, space="flux1", own="scaled")),
    ForeignFormat(
        "_anima.npz",
        what="a latent cache of kohya's sd-scripts in the space of Wan 2.1's autoencoder, which no"
        " model here decodes.",
    ),
    ForeignFormat(
        "_hi.npz",
        what="a latent cache of kohya's sd-scripts in the space of HunyuanImage's autoencoder,"
        " which no model here decodes.",
    ),
    ForeignFormat("_te.npz", what="a cache of a text encoder's outputs; it holds no latents."),
    ForeignFormat(
        "_te_outputs.npz", what="a cache of a text encoder's outputs; it holds no latents."
    ),
    ForeignFormat(
        ".npz",
        what="an archive of numpy arrays, and its name does not say whose latents it holds: of"
        f" kohya's caches, those that end in {KOHYA_NAMES} are read. {SAVE}",
    ),
    ForeignFormat(".npy", what=f"a numpy array, which does not say whose latents it holds. {SAVE}"),
    ForeignFormat(".latent", open_comfy),
    *(ForeignFormat(suffix, what=PICKLE) for suffix in (".pt", ".pth", ".ckpt")),
)
"""The first one that a name ends in is meant."""


def foreign_format(path: AnyPath) -> ForeignFormat | None:
    """The format of a file by the end of its name; None where it is no other tool's."""
    name = path.name.lower()
    return next((each for each in FOREIGN if name.endswith(each.suffix)), None)


def open_foreign(path: AnyPath, state: str | None) -> LatentSource | None:
    """The latents of another tool's file; None where its name is not that of one.

    StoreError where it is one that is not read: what it is, and what to do.
    """
    found = foreign_format(path)
    if found is None:
        return None
    if found.open is None:
        raise StoreError(f"{path} is {found.what}")
    return found.open(path, state)
