"""Says what a slow stage is, and what helps where it limits a job.

Only what was found to help stands here, and only where it can apply; docs/internals/scale.md has
the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

WORDS = {
    "read": "reading the files",
    "decode_image": "decoding the files",
    "preprocess": "resizing",
    "encode": "the model itself",
    "decode": "the model itself",
    "encode_image": "compressing what came out",
    "metrics": "measuring",
    "autoencoder": "the model itself",
    "resize": "resizing the frames",
    "features": "the network of the features",
    "write": "writing",
}
"""What a stage is."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What advice depends on besides the stages."""

    gpu: bool | None = None
    """Whether the model runs on one; None where nobody said."""
    cores: int | None = None
    """CPU cores that the job may use, where known."""
    clips: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    """Stage to an option of this job that makes it faster."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Who limits a job."""

    threads: int
    setting: Setting

    @property
    def has_room(self) -> bool:
        """Whether more workers would find a core; of clips, one decoder uses them all already."""
        cores = self.setting.cores
        return not self.setting.clips and (cores is None or self.threads < cores)


Help = tuple[str, Callable[[Limit], bool]]
"""What helps, and where it can."""


def anywhere(_: Limit) -> bool:
    """For what helps in any job."""
    return True


MORE_WORKERS: Help = ("more --workers", lambda limit: limit.has_room)
MORE_CORES: Help = ("more CPU cores", lambda limit: not limit.has_room)
SMALLER_SOURCES: Help = ("smaller sources", anywhere)
FASTER_STORAGE: Help = ("faster storage", anywhere)
A_GPU: Help = ("a GPU", lambda limit: limit.setting.gpu is False)
A_SMALLER_MODEL: Help = ("a smaller model", anywhere)

HELPS: dict[str, tuple[Help, ...]] = {
    "read": (FASTER_STORAGE,),
    "decode_image": (MORE_WORKERS, MORE_CORES, SMALLER_SOURCES),
    "preprocess": (MORE_WORKERS, MORE_CORES, SMALLER_SOURCES),
    "encode": (A_GPU, A_SMALLER_MODEL),
    "decode": (A_GPU, A_SMALLER_MODEL),
    "encode_image": (MORE_WORKERS, MORE_CORES),
    "autoencoder": (A_GPU, A_SMALLER_MODEL),
    "resize": (SMALLER_SOURCES,),
    "features": (A_GPU,),
    "write": (FASTER_STORAGE,),
}
"""Stage to what helps where it is the limit; nothing is known to help the others."""


def advice(stage: str, limit: Limit) -> str:
    """What would help where `stage` is the limit; empty where nothing is known to."""
    found = [text for text, applies in HELPS.get(stage, ()) if applies(limit)]
    if stage in limit.setting.options:
        found.append(limit.setting.options[stage])
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
