"""Names the autoencoders by their published class names, and loads each one on its first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "CapacitorDecoder",
    "CapacitorDecoderInferenceConfig",
    "DinacAE",
    "DinacAEConfig",
    "DinacAEInferenceConfig",
    "EncoderPosterior",
    "FCDMDiffAE",
    "FCDMDiffAEConfig",
    "FCDMDiffAEInferenceConfig",
    "FullCapacitor",
    "FullCapacitorInferenceConfig",
    "load_model",
]

_HOMES = {
    "CapacitorDecoder": ("latentcli.models.fcdm", "CapacitorDecoder"),
    "CapacitorDecoderInferenceConfig": ("latentcli.models.vp_diffusion", "InferenceConfig"),
    "DinacAE": ("latentcli.models.dinac", "DinacAE"),
    "DinacAEConfig": ("latentcli.models.dinac", "DinacAEConfig"),
    "DinacAEInferenceConfig": ("latentcli.models.vp_diffusion", "InferenceConfig"),
    "EncoderPosterior": ("latentcli.core.posterior", "Posterior"),
    "FCDMDiffAE": ("latentcli.models.fcdm", "FCDMDiffAE"),
    "FCDMDiffAEConfig": ("latentcli.models.fcdm", "FCDMConfig"),
    "FCDMDiffAEInferenceConfig": ("latentcli.models.vp_diffusion", "InferenceConfig"),
    "FullCapacitor": ("latentcli.models.fcdm", "FullCapacitor"),
    "FullCapacitorInferenceConfig": ("latentcli.models.vp_diffusion", "InferenceConfig"),
    "load_model": ("latentcli.models.registry", "load_model"),
}

if TYPE_CHECKING:
    from latentcli.core.posterior import Posterior as EncoderPosterior
    from latentcli.models.dinac import DinacAE, DinacAEConfig
    from latentcli.models.fcdm import CapacitorDecoder, FCDMDiffAE, FullCapacitor
    from latentcli.models.fcdm import FCDMConfig as FCDMDiffAEConfig
    from latentcli.models.registry import load_model
    from latentcli.models.vp_diffusion import InferenceConfig as CapacitorDecoderInferenceConfig
    from latentcli.models.vp_diffusion import InferenceConfig as DinacAEInferenceConfig
    from latentcli.models.vp_diffusion import InferenceConfig as FCDMDiffAEInferenceConfig
    from latentcli.models.vp_diffusion import InferenceConfig as FullCapacitorInferenceConfig


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'latentcli.models' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
