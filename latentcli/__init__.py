"""Names the public Python functions and classes, and loads each one on its first use.

Everything is loaded on first use, so `import latentcli` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""As typing has it, whose import alone would double what this one costs."""

__version__ = "0.1.0"
__all__ = [
    "BucketBatchSampler",
    "LatentDataset",
    "LatentStore",
    "LatentStream",
    "__version__",
    "collate",
    "load_latents",
    "load_model",
    "open_store",
    "safetensors_decoder",
]

_HOMES = {
    "load_model": "latentcli.models.registry",
    "open_store": "latentcli.jobs.store.latent_store",
    "LatentStore": "latentcli.jobs.store.latent_store",
    "LatentDataset": "latentcli.jobs.training.dataset",
    "LatentStream": "latentcli.jobs.training.stream",
    "BucketBatchSampler": "latentcli.jobs.training.bucket_sampler",
    "collate": "latentcli.jobs.training.collate",
    "load_latents": "latentcli.shards.tar.decoder",
    "safetensors_decoder": "latentcli.shards.tar.decoder",
}

if TYPE_CHECKING:
    from typing import Any

    from latentcli.jobs.store.latent_store import LatentStore, open_store
    from latentcli.jobs.training.bucket_sampler import BucketBatchSampler
    from latentcli.jobs.training.collate import collate
    from latentcli.jobs.training.dataset import LatentDataset
    from latentcli.jobs.training.stream import LatentStream
    from latentcli.models.registry import load_model
    from latentcli.shards.tar.decoder import load_latents, safetensors_decoder


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'latentcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names too, though most are not loaded yet: shells complete from this."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "annotations"})
