"""Computes LPIPS of images and rFID of whole sets, with trained networks.

Both are torchmetrics', an extra of the package. Their networks' weights are files that torch
keeps in its cache or fetches, or that the user names; no code in such a file is ever run.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from latentcli.core.errors import UsageError, WeightsError
from latentcli.metrics.ssim import check_pair

_LPIPS_PIXELS = 2**21
"""Pixels of a batch that go through LPIPS's network at once, which bounds its memory."""
_RFID_IMAGES = 64
_FEATURES = 2048
_SUMS = ("features_sum", "features_cov_sum", "features_num_samples")
"""What torchmetrics keeps of a set, under real_ and fake_."""
SetMark = list[dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Backbone:
    """The network that a measure looks at images with."""

    network: str
    """As people call it."""
    url: str
    """Where its weights are fetched from; the last part is the file's name in torch's cache."""
    packages: tuple[str, ...]
    """Modules that must be there, each after those that it imports."""
    checked: bool
    """The digits at the end of the file's name are the start of its SHA-256."""


_MODELS = "https://download.pytorch.org/models"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download"
# A torchvision that does not load keeps torchmetrics from loading too, so it comes first.
_TORCHVISION = ("torchvision", "torchmetrics")
BACKBONES = {
    "lpips": Backbone("AlexNet", f"{_MODELS}/alexnet-owt-7be5be79.pth", _TORCHVISION, True),
    "lpips_vgg": Backbone("VGG16", f"{_MODELS}/vgg16-397923af.pth", _TORCHVISION, True),
    "rfid": Backbone(
        "Inception v3",
        f"{_FIDELITY}/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        # torch-fidelity does not say whether these digits are a checksum.
        (*_TORCHVISION, "torch_fidelity"),
        False,
    ),
}
"""The measures that need one."""


class SetValue(NamedTuple):
    """A distance between two sets of images."""

    value: float | None
    """None where a set has fewer than two images."""
    note: str | None
    """What keeps the figure from being comparable with others, if anything does."""


LEAST_SIDES = {"lpips": 31, "lpips_vgg": 16}
"""The shortest sides that pass through the networks of LPIPS."""
_NETS = {"lpips": "alex", "lpips_vgg": "vgg"}
"""As torchmetrics names them."""


def open_lpips(
    name: str, device: torch.device, weights: Mapping[str, str]
) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS on a device: uint8 [N, 3, H, W] twice to float64 [N], 0 for equal images.

    Zhang and others 2018, "The unreasonable effectiveness of deep features as a perceptual
    metric", version 0.1, with the network of `name` in BACKBONES. UsageError where a package is
    missing, WeightsError where the network's weights are.
    """
    _check_packages(name)
    state, source = _read_backbone(name, weights)
    functional = import_module("torchmetrics.functional.image.lpips")
    # The random weights that are overwritten must not move the sequence that noise is drawn from.
    with torch.random.fork_rng(devices=[]):
        net = functional._NoTrainLpips(net=_NETS[name], pnet_rand=True)
    _fill(net.net, state, BACKBONES[name].network, source)
    return partial(_lpips, net.to(device), LEAST_SIDES[name])


@torch.inference_mode()
def _lpips(net: Module, least_side: int, a: Tensor, b: Tensor) -> Tensor:
    check_pair(a, b, least_side, "LPIPS")
    many = max(1, _LPIPS_PIXELS // (a.shape[2] * a.shape[3]))
    parts = [
        net(x / 127.5 - 1, y / 127.5 - 1).double().flatten()
        for x, y in zip(torch.split(a, many), torch.split(b, many), strict=True)
    ]
    return torch.cat(parts)


def _fill(net: Module, state: dict[str, Tensor], network: str, source: Path) -> None:
    """Weights of a classifier into its first layers, which torchmetrics keeps in slices."""
    ready = {name: f"features.{name.partition('.')[2]}" for name in net.state_dict()}
    for name, tensor in net.state_dict().items():
        found = state.get(ready[name])
        if found is None or found.shape != tensor.shape:
            what = "is missing" if found is None else f"has the shape {list(found.shape)}"
            raise WeightsError(
                f"{source} does not hold the weights of {network}: {ready[name]} {what}; expected"
                f" is {list(tensor.shape)}."
            )
    net.load_state_dict({name: state[key] for name, key in ready.items()})


def open_rfid(device: torch.device, weights: Mapping[str, str], models: int) -> FrechetInception:
    """rFID with the 2,048 features of Inception v3, for the reconstructions of `models` models.

    UsageError where a package is missing, WeightsError where the network's weights are.
    """
    _check_packages("rfid")
    _, source = _read_backbone("rfid", weights)
    fid = import_module("torchmetrics.image.fid")
    try:
        # The file was found to hold nothing but tensors: torch-fidelity would run its code.
        with torch.random.fork_rng(devices=[]):
            network = fid.NoTrainInceptionV3("inception-v3-compat", [str(_FEATURES)], str(source))
    except RuntimeError as error:
        raise WeightsError(
            f"{source} does not hold the weights of Inception v3 that torch-fidelity reads:"
            f" fetch {BACKBONES['rfid'].url}."
        ) from error
    network.num_features = _FEATURES
    return FrechetInception(network, device, models)


class FrechetInception:
    """Streams images into means and covariances of features; nothing of an image is kept.

    Heusel and others 2017, "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium". The originals' features are computed once, however many models there are.
    """

    name = "rfid"
    label = "rFID"
    unit = ""
    digits = 3
    higher_is_better = False
    protocol = (
        "of the whole set, torchmetrics' FrechetInceptionDistance: 2,048 features of"
        " torch-fidelity's Inception v3, images resized to 299x299 (bilinear, antialiased)"
    )

    def __init__(self, network: Module, device: torch.device, models: int) -> None:
        """`network` takes uint8 [N, 3, H, W] to [N, D], and has D as `num_features`."""
        fid = import_module("torchmetrics.image.fid")
        build = partial(fid.FrechetInceptionDistance, network, compute_with_cache=False)
        self._real: Any = build().to(device)
        self._fakes: list[Any] = [build().to(device) for _ in range(models)]

    def add_real(self, images: Tensor) -> None:
        """Takes in originals, uint8 [N, 3, H, W] on the device."""
        for part in torch.split(images, _RFID_IMAGES):
            self._real.update(part, real=True)

    def add_fake(self, model: int, images: Tensor) -> None:
        """Takes in what `model`, counted from 0, made of originals, in any order."""
        for part in torch.split(images, _RFID_IMAGES):
            self._fakes[model].update(part, real=False)

    def mark(self) -> SetMark:
        """Where the sums stand; a copy of them."""
        return [
            {name: getattr(metric, name).clone() for name in names} for metric, names in self._sums
        ]

    def back_to(self, mark: SetMark) -> None:
        """Forgets what came after a mark."""
        for (metric, _), sums in zip(self._sums, mark, strict=True):
            for name, values in sums.items():
                setattr(metric, name, values)

    @property
    def _sums(self) -> list[tuple[Any, list[str]]]:
        """Each metric, and what it has of its set."""
        real = [f"real_{part}" for part in _SUMS]
        fake = [f"fake_{part}" for part in _SUMS]
        return [(self._real, real), *((metric, fake) for metric in self._fakes)]

    def value(self, model: int) -> SetValue:
        """The distance so far, at least 0."""
        metric = self._fakes[model]
        for part in _SUMS:
            setattr(metric, f"real_{part}", getattr(self._real, f"real_{part}"))
        features = len(metric.fake_features_sum)
        fewest = int(min(metric.real_features_num_samples, metric.fake_features_num_samples))
        if fewest < 2:
            return SetValue(None, f"rFID needs two images; there are {fewest}.")
        value = float(metric.compute())
        if not math.isfinite(value):
            return SetValue(None, "rFID is not a number: the features overflow.")
        # Rounding can bring equal sets below 0.
        return SetValue(max(0.0, value), _few(fewest, features) if fewest < features else None)


def _few(images: int, features: int) -> str:
    return (
        f"rFID of {images:,} images: with fewer than {features:,}, the covariance of {features:,}"
        " features is singular and the figure is too high; compare it only with figures of the"
        " same images."
    )


def _check_packages(name: str) -> None:
    for module in BACKBONES[name].packages:
        package = module.replace("_", "-")
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"The measure {name} needs {package}, which is not installed ({error}):"
                " pip install 'latentcli[metrics]'"
            ) from error
        # A torchvision that was built for another torch fails with a RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise UsageError(
                f"The measure {name} needs {package}, which is installed but does not load beside"
                f" torch {torch.__version__} ({error}). Install the build of it that belongs to"
                " this torch."
            ) from error


def _read_backbone(name: str, weights: Mapping[str, str]) -> tuple[dict[str, Tensor], Path]:
    path = _find_backbone(name, weights)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch meets damage with whatever its parsers stumble over.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}, the weights of {BACKBONES[name].network} for {name}, cannot be read as"
            f" tensors: {reason}. Fetch {BACKBONES[name].url} again."
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds {type(state).__name__}; it must be a table of tensors.")
    return state, path


def _find_backbone(name: str, weights: Mapping[str, str]) -> Path:
    """The file that the user named, or the one in torch's cache, fetched if need be."""
    backbone, option = BACKBONES[name], f"--metric-weights {name}=PATH"
    if name in weights:
        path = Path(weights[name]).expanduser()
        if path.is_file():
            return path
        raise WeightsError(
            f"--metric-weights {name}={weights[name]} is not a file; it must be the weights of"
            f" {backbone.network}, which are at {backbone.url}."
        )
    file = backbone.url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if path.is_file():
        return path
    digits = re.search(r"-([0-9a-f]+)\.pth$", file) if backbone.checked else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = digits[1] if digits else None
        torch.hub.download_url_to_file(backbone.url, str(path), prefix, sys.stderr.isatty())
    # A wrong checksum is a RuntimeError; what the network does to a download is an OSError.
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"The measure {name} needs the weights of {backbone.network}, {file}, which are not on"
            f" this machine and could not be fetched ({error}). Fetch {backbone.url} elsewhere and"
            f" put it at {path}, or name it with {option}."
        ) from error
    return path
