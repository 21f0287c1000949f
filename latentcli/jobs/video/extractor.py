"""Loads the network that turns groups of frames into features, from VideoMAE V2 weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from latentcli.core.errors import UsageError, WeightsError
from latentcli.metrics.videomae import GIANT, VideoMae, VideoMaeConfig, load_videomae
from latentcli.models.pretrained import VARIABLE, Checkpoint, Located, locate
from latentcli.models.weights import file_sha256, read_state_dict

NAME = "videomae_v2_giant"
FILE = "vit_g_hybrid_pt_1200e_ssv2_ft.pth"
REPO = "OpenGVLab/InternVideoMAE_models"
FOLDER = "mae-g"
WANTED = Checkpoint(NAME, REPO, FILE, subfolder=FOLDER, needs_config=False, instead="")


@dataclass(frozen=True, slots=True)
class Extractor:
    """A network for features, and what is reported of it."""

    network: VideoMae
    name: str
    sha256: str
    """Of the weights file."""
    device: torch.device

    @torch.inference_mode()
    def features(self, clips: Tensor) -> Tensor:
        """float32 [N, 3, T, H, W] in [0, 1] to float32 [N, D] on the CPU."""
        return self.network.forward_features(clips.to(self.device)).cpu()


def load_extractor(weights: str | None, device: torch.device, frames: int, size: int) -> Extractor:
    """The network, from `weights` or from where weights are looked for otherwise.

    A config.json beside the weights, in a folder, gives other sizes than the giant's. UsageError
    where it cannot take groups of `frames` of `size` x `size`; WeightsError where there are no
    weights or they do not fit.
    """
    located = find_weights(weights)
    config = config_of(located)
    check_groups(config, frames, size)
    path = located.weights_path
    network = load_videomae(config, read_state_dict(path), str(path), device)
    name = NAME if config == GIANT else f"videomae_v2_{config.dim}x{config.depth}"
    return Extractor(network, name, file_sha256(path), device)


def find_weights(weights: str | None) -> Located:
    """`--weights`, $LATENTCLI_WEIGHTS/videomae_v2_giant, the Hugging Face cache, then the Hub."""
    if weights is not None:
        return locate(WANTED, weights=weights)
    try:
        return locate(WANTED)
    except WeightsError as error:
        looked = takewhile(lambda line: not line.startswith("Provide"), str(error).splitlines())
        raise WeightsError(
            "\n".join(
                [
                    *looked,
                    "Provide them in one of these ways:",
                    f"  1. --weights PATH: the file {FILE}, or a folder with it",
                    f"  2. {VARIABLE}=FOLDER, with the file FOLDER/{NAME}/{FILE}",
                    f"  3. on a machine with network, `hf download {REPO} {FOLDER}/{FILE}`, then"
                    " copy its cache folder here (or set HF_HOME to a copy of its cache)",
                    "Features that another program made need none: give their files to"
                    " latentcli video-distance.",
                ]
            )
        ) from error


def config_of(located: Located) -> VideoMaeConfig:
    """The giant's sizes, or those of the config.json; WeightsError where it says other things."""
    if located.config is None:
        return GIANT
    try:
        return VideoMaeConfig(**located.config)
    except (TypeError, ValueError) as error:
        keys = ", ".join(VideoMaeConfig.__dataclass_fields__)
        raise WeightsError(
            f"{located.weights_path.parent / 'config.json'} does not describe a VideoMAE V2"
            f" network: {error}. Its keys are {keys}; without the file it is the giant."
        ) from error


def check_groups(config: VideoMaeConfig, frames: int, size: int) -> None:
    """UsageError where groups of so many frames, size x size, do not divide into tokens."""
    if frames % config.tubelet or frames < 1:
        raise UsageError(
            f"--frames is {frames}; the network takes frames {config.tubelet} at a time, so it must"
            f" be a multiple of {config.tubelet}."
        )
    if size % config.patch or size < 1:
        raise UsageError(f"--size is {size}; it must be a multiple of {config.patch} pixels.")
