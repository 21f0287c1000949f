"""Loads the original implementation of a model, where the user has installed it.

The implementation is an installed Python package: the authors' own for the FCDM and DINAC families,
diffusers for the others. Nothing from a checkpoint's repository is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.models.base import Autoencoder
from latentcli.models.pretrained import WEIGHTS, Located
from parity.run import SEED

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"
TEMPORAL = "AutoencoderKLTemporalDecoder"
OWN = {
    "semdisdiffae": ("fcdm_diffae", "FCDMDiffAE"),
    "semdisdiffae_p32_v2": ("fcdm_diffae", "FCDMDiffAE"),
    "full_capacitor": ("full_capacitor", "FullCapacitor"),
    "capacitor_decoder": ("capacitor_decoder", "CapacitorDecoder"),
    "dinac_ae": ("dinac_ae", "DinacAE"),
    "dinac_ae_d2": ("dinac_ae", "DinacAE"),
}
"""Package and class of each preset that its authors publish code of."""
SETTINGS = "InferenceConfig"
"""What the class of such a package's decode settings ends in."""
DIFFUSERS = {"kl": "AutoencoderKL", "tiny": "AutoencoderTiny"}
"""Class of each family that diffusers has, unless its config names another."""
HALF_OF = {"quant_conv": "encoder", "post_quant_conv": "decoder"}


class NoCounterpart(Exception):
    """There is nothing to compare with; the reason is a part of a sentence."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """Another implementation with the same weights, in the conventions of ours."""

    name: str
    """Package, version and class."""
    encode: Callable[[Tensor], Tensor]
    """Images [1, 3, H, W] to latents of the model's space."""
    decode: Callable[[Tensor, int, int], Tensor]
    """Such latents, height and width to images; with the seed of `parity.run`."""


@contextmanager
def foreign_code(name: str) -> Iterator[None]:
    """Around calls of another package: whatever it raises becomes a LatentCliError of one line."""
    try:
        yield
    except NoCounterpart:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or ["no details"])[0]
        raise LatentCliError(
            f"{name} is installed but does not run: {type(error).__name__}: {reason}"
        ) from error


def counterpart(model: Autoencoder, located: Located) -> Counterpart:
    """The original implementation of this model; NoCounterpart where there is none to be had."""
    if model.info.preset_name in OWN:
        return _own(model, located, *OWN[model.info.preset_name])
    if model.info.family in DIFFUSERS:
        return _of_diffusers(model, located)
    raise NoCounterpart(f"no package is known for {model.info.name}")


def _own(model: Autoencoder, located: Located, package: str, class_name: str) -> Counterpart:
    module = _imported(package)
    settings = next((getattr(module, n) for n in dir(module) if n.endswith(SETTINGS)), None)
    if not hasattr(module, class_name) or settings is None:
        raise NoCounterpart(f"the package {package} has no {class_name} or no *{SETTINGS}")
    if located.config is None or located.weights_path.name != WEIGHTS:
        raise NoCounterpart(f"{package} loads a folder with config.json and {WEIGHTS}")
    folder, kind = str(located.weights_path.parent), getattr(module, class_name)
    with foreign_code(package):
        other = kind.from_pretrained(folder, device=str(model.device), dtype=model.dtype)

    def decode(latents: Tensor, height: int, width: int) -> Tensor:
        config = settings(num_steps=1, seed=SEED)
        images: Tensor = other.decode(
            latents.to(model.device), height=height, width=width, inference_config=config
        )
        return images

    def encode(images: Tensor) -> Tensor:
        latents: Tensor = other.encode(images.to(model.device))
        return latents

    return Counterpart(_title(package, class_name), encode, decode)


def _of_diffusers(model: Autoencoder, located: Located) -> Counterpart:
    config = model.info.config
    default = DIFFUSERS[model.info.family]
    class_name = config.get("autoencoder", config.get("_class_name", default))
    kind = getattr(_imported("diffusers"), class_name, None)
    if kind is None:
        raise NoCounterpart(f"the installed diffusers has no {class_name}")
    with foreign_code("diffusers"):
        vae = _vae(kind, model, located).to(model.device, model.dtype).eval()
    title = _title("diffusers", class_name)
    make = _tiny if model.info.family == "tiny" else _kl
    return make(title, vae, config)


def _vae(kind: Any, model: Autoencoder, located: Located) -> Any:
    """By the class's own loader from a published folder, else filled with the tensors of ours."""
    if located.config is not None and located.weights_path.name == DIFFUSERS_FILE:
        folder = str(located.weights_path.parent)
        return kind.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    known = inspect.signature(kind).parameters
    vae = kind.from_config({k: v for k, v in model.info.config.items() if k in known})
    missing, strange = vae.load_state_dict(
        {name: tensor.float() for name, tensor in model.state_dict().items()}, strict=False
    )
    halves = {name.partition(".")[0] for name in missing}
    halves = {HALF_OF.get(half, half) for half in halves}
    absent = {half for half in ("encoder", "decoder") if getattr(model, half, None) is None}
    if strange or not halves <= absent:
        raise NoCounterpart(
            f"diffusers' {kind.__name__} has another network: it has no place for {len(strange)}"
            f" of the tensors and lacks {len(missing)}, such as {[*strange, *missing][0]}"
        )
    return vae


def _kl(title: str, vae: Any, config: Mapping[str, Any]) -> Counterpart:
    """Latents as diffusers' pipelines make them: normed by `bn` after folding, or scaled."""
    bn, fold = getattr(vae, "bn", None), 1
    shift: float | Tensor = vae.config.get("shift_factor") or 0.0
    std: float | Tensor = 1 / vae.config.get("scaling_factor", 1.0)
    if bn is not None:
        fold = vae.config.patch_size[0]
        shift = bn.running_mean.float().view(1, -1, 1, 1)
        std = (bn.running_var.float() + vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
    clip = {"num_frames": 1} if type(vae).__name__ == TEMPORAL else {}

    def encode(images: Tensor) -> Tensor:
        mean = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
        return (F.pixel_unshuffle(mean, fold) - shift) / std

    def decode(latents: Tensor, height: int, width: int) -> Tensor:
        raw = F.pixel_shuffle(latents.to(vae.device) * std + shift, fold)
        images: Tensor = vae.decode(raw.to(vae.dtype), **clip).sample
        return images

    return Counterpart(title, encode, decode)


def _tiny(title: str, vae: Any, config: Mapping[str, Any]) -> Counterpart:
    """diffusers' class takes and gives scaled latents already."""
    fold = config.get("patch_size", 1)
    is_unit = tuple(config.get("output_range", (-1, 1))) == (0, 1)

    def encode(images: Tensor) -> Tensor:
        latents = vae.encode(images.to(vae.device, vae.dtype)).latents
        return F.pixel_unshuffle(latents, fold)

    def decode(latents: Tensor, height: int, width: int) -> Tensor:
        z = F.pixel_shuffle(latents.to(vae.device, vae.dtype), fold)
        images: Tensor = vae.decode(z).sample.float()
        return images * 2 - 1 if is_unit else images

    return Counterpart(title, encode, decode)


def _imported(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise NoCounterpart(f"the package {package} cannot be imported: {error}") from error
        raise NoCounterpart(f"the package {package} is not installed") from error


def _title(package: str, class_name: str) -> str:
    try:
        return f"{package} {version(package)} {class_name}"
    except PackageNotFoundError:
        return f"{package} {class_name}"
