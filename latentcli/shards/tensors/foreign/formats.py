"""Names the formats of other tools, and opens a file by its name and content."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.foreign import (
    ai_toolkit,
    comfy,
    kohya,
    lightningdit,
    musubi,
    simpletuner,
)
from latentcli.shards.tensors.foreign.latents import ForeignFile

Opener = Callable[[AnyPath, str | None, str], ForeignFile | None]
"""(path, state that is asked for, stem of the keys) to its latents; None where it is another
format's."""


def without_suffix(name: str) -> str:
    """A file's name without its last suffix."""
    return name.rpartition(".")[0] or name


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    """Files whose name matches a pattern."""

    name: str
    """Whose, or what they are; equal for those that may lie in one folder."""
    pattern: re.Pattern[str]
    """Of the whole name, in lower case."""
    open: Opener | None = None
    """Reads them; None where they cannot be read."""
    what: str = ""
    """What they are and what to do, behind "is"."""
    stem: Callable[[str], str] = without_suffix
    """The name of the picture in a file's name."""
    several: bool = False
    """Whether a file may hold several latents."""
    latents: bool = True
    """Whether they are some tool's latents; a folder of latents may hold others beside them."""


def ending(text: str) -> re.Pattern[str]:
    """Names that end in a text."""
    return re.compile(f".*{re.escape(text)}", re.DOTALL)


def kohya_format(suffix: str, space: str, own: str, *, several: bool) -> ForeignFormat:
    """A cache of kohya's sd-scripts."""
    return ForeignFormat(
        f"{kohya.NAME} ({suffix})",
        ending(f"{suffix}.npz"),
        partial(kohya.open_kohya, space=space, own=own),
        stem=kohya.kohya_stem,
        several=several,
    )


def musubi_format(arch: str) -> ForeignFormat:
    """A cache of musubi-tuner."""
    return ForeignFormat(
        f"{musubi.NAME} ({arch})",
        re.compile(rf".+_\d{{4,}}x\d{{4,}}_{arch}\.safetensors", re.DOTALL),
        partial(musubi.open_musubi, arch=arch) if arch in musubi.SPACES else None,
        what=f"a latent cache of musubi-tuner: {musubi.UNREAD.get(arch)}.",
        stem=musubi.musubi_stem,
    )


TEXT = "a cache of a text encoder's outputs; it holds no latents."
KOHYA = "a latent cache of kohya's sd-scripts in the space of"
ARCHS = (*musubi.SPACES, *musubi.UNREAD)

FORMATS = (
    kohya_format("_sd", "sd1", "raw", several=False),
    kohya_format("_sdxl", "sdxl", "raw", several=False),
    kohya_format("_sd3", "sd3", "raw", several=True),
    kohya_format("_flux", "flux1", "scaled", several=True),
    kohya_format("_lumina", "flux1", "scaled", several=True),
    ForeignFormat(
        f"{kohya.NAME} (_anima)",
        ending("_anima.npz"),
        what=f"{KOHYA} Wan 2.1's autoencoder, which no model here decodes.",
    ),
    ForeignFormat(
        f"{kohya.NAME} (_hi)",
        ending("_hi.npz"),
        what=f"{KOHYA} HunyuanImage's autoencoder, which no model here decodes.",
    ),
    ForeignFormat("a text cache", ending("_te.npz"), what=TEXT, latents=False),
    ForeignFormat("a text cache", ending("_te_outputs.npz"), what=TEXT, latents=False),
    ForeignFormat(
        f"{kohya.NAME} (old names)",
        ending(".npz"),
        kohya.open_old_kohya,
        stem=without_suffix,
        latents=False,
    ),
    ForeignFormat(
        "an archive",
        ending(".npz"),
        what="an archive of numpy arrays, and its name does not say whose latents it holds: of"
        f" kohya's caches, those that end in {kohya.NAMES} are read. {simpletuner.SAVE}",
        latents=False,
    ),
    ForeignFormat(
        "an array",
        ending(".npy"),
        what=f"a numpy array, which does not say whose latents it holds. {simpletuner.SAVE}",
        latents=False,
    ),
    ForeignFormat(comfy.NAME, ending(".latent"), comfy.open_comfy, several=True),
    ForeignFormat(
        "statistics",
        re.compile(r"latents_stats\.pt"),
        what="the mean and deviation of LightningDiT's latents; it holds no latents.",
        latents=False,
    ),
    ForeignFormat(simpletuner.NAME, ending(".pt"), simpletuner.open_simpletuner),
    *(
        ForeignFormat("a pickle", ending(suffix), what=simpletuner.PICKLE, latents=False)
        for suffix in (".pth", ".ckpt")
    ),
    ForeignFormat(
        "a text cache",
        re.compile(rf".+_(?:{'|'.join(ARCHS)})_te\.safetensors", re.DOTALL),
        what=TEXT,
        latents=False,
    ),
    *(musubi_format(arch) for arch in ARCHS),
    ForeignFormat(
        ai_toolkit.NAME,
        ending(".safetensors"),
        ai_toolkit.open_ai_toolkit,
        stem=ai_toolkit.ai_toolkit_stem,
    ),
    ForeignFormat(
        lightningdit.NAME,
        ending(".safetensors"),
        lightningdit.open_lightningdit,
        several=True,
    ),
)
"""The first one whose name matches, and whose content does, is meant."""


def formats_of(name: str) -> Iterator[ForeignFormat]:
    """The formats that a file of this name may be of; none where it is no other tool's."""
    lower = name.lower()
    return (each for each in FORMATS if each.pattern.fullmatch(lower))


def open_foreign(
    path: AnyPath, state: str | None, stem: str | None = None
) -> tuple[ForeignFormat, ForeignFile] | None:
    """The latents of another tool's file, and its format; None where it is not that of one.

    Keys begin with `stem`, or with the name of the picture in the file's name. StoreError where it
    is one that is not read: what it is, and what to do. UsageError where `state` contradicts it.
    """
    for each in formats_of(path.name):
        if each.open is None:
            raise StoreError(f"{path} is {each.what}")
        found = each.open(path, state, each.stem(path.name) if stem is None else stem)
        if found is not None:
            return each, found
    return None
