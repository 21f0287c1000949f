"""Trains fcdm_nano, the small bundled autoencoder, from the training tars.

    python scripts/train_nano.py --images train-cid22.tar train-clic.tar --output out --minutes 75

Runs on a CPU or a CUDA device. The output folder always holds the latest averaged weights in their
final form (config.json and model.safetensors) and log.txt. With --steps instead of --minutes the
learning rate follows the step count, so that a seed gives the same run again. The recipe and what
came out of it are in docs/internals/fcdm_nano.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from nano.crops import PATCH, CropPool, Photo, principal_components, read_photos, shrunk, trimmed
from nano.muon import Muon
from nano.network import denoise, encode, tap_positions
from nano.start import Parameters, pca_start
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentcli.models.fcdm import FAMILY, FCDMConfig, FCDMDiffAE
from latentcli.models.vp_diffusion import InferenceConfig
from latentcli.models.weights import load_into

CONFIG = FCDMConfig(
    model_dim=320,
    encoder_depth=3,
    decoder_depth=4,
    decoder_start_blocks=1,
    decoder_end_blocks=1,
    mlp_ratio=2.0,
    adaln_low_rank_rank=16,
)
GRID = 12
"""Side of a training crop in patches."""
HELD_OUT = 20
"""Every 20th photograph is kept out of training, for the curve in the log."""
PCA_SCALES = (1.0, 0.7, 0.5)
NOISY_SHARE = 0.25
"""Part of each batch at uniform times; the rest is at t = 1, the one-step decode."""
NOISY_WEIGHT = 0.25
DROPPED_SHARE = 0.25
"""Part of the noisy crops that do without the middle blocks, so that PDG has something to guide."""
LOSS_FLOOR = 1e-3
"""Added to a crop's squared error before the logarithm: flat crops do not take over."""
MUON_RATE = 0.02
ADAM_RATE = 2e-3
WARM_UP = 0.02
AVERAGING = 0.998
MATRICES = (
    "pwconv1.weight",
    "pwconv2.weight",
    "encoder.patchify.proj.weight",
    "to_bottleneck.weight",
    "latent_up.weight",
    "fuse_in.weight",
    "fuse_skip.weight",
    "out_proj.weight",
)
"""Endings of the names that Muon trains; AdamW trains the rest."""


class Objective:
    """Mean over crops of log(squared error + floor) of the decoder's x-prediction."""

    def __init__(self, parameters: Parameters, device: torch.device) -> None:
        self.parameters = parameters
        self.links = tap_positions(GRID).to(device)
        self.schedule = FCDMDiffAE(CONFIG).schedule

    def __call__(
        self, trained: dict[str, Tensor], pixels: Tensor, noise: Tensor, t: Tensor, drop: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss and squared error per crop; `pixels` and `noise` are [positions, crops, 768]."""
        state = self.parameters.state(trained)
        alpha, sigma = self.schedule.alpha_sigma(t)
        noisy = alpha[:, None] * pixels + sigma[:, None] * CONFIG.pixel_noise_std * noise
        latents = encode(state, CONFIG, pixels, self.links)
        predicted = denoise(state, CONFIG, noisy, t, latents, drop, self.links)
        errors = (predicted - pixels).square().mean((0, 2))
        weights = torch.where(t < 1.0, NOISY_WEIGHT, 1.0)
        return (weights * torch.log(errors + LOSS_FLOOR)).sum() / weights.sum(), errors


class Trainer:
    """Parameters, their running average, and the two optimisers."""

    def __init__(self, parameters: Parameters, device: torch.device, compiled: bool) -> None:
        self.parameters = parameters
        self.average = {k: v.detach().clone() for k, v in parameters.trained.items()}
        objective = Objective(parameters, device)
        self.objective = torch.compile(objective) if compiled else objective
        matrices = {k: v for k, v in parameters.trained.items() if k.endswith(MATRICES)}
        rest = [v for k, v in parameters.trained.items() if k not in matrices]
        self.muon = Muon(matrices.values())
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.device = device
        self.steps = 0

    def step(self, pixels: Tensor, progress: float) -> float:
        """One step at `progress` in [0, 1); gives the mean squared error of one-step decoding."""
        crops = pixels.shape[1]
        noisy = int(crops * NOISY_SHARE)
        t = torch.ones(crops)
        t[:noisy] = torch.rand(noisy)
        drop = torch.zeros(crops, dtype=torch.bool)
        drop[:noisy] = torch.rand(noisy) < DROPPED_SHARE
        pixels, noise, t, drop = (
            tensor.to(self.device) for tensor in (pixels, torch.randn(pixels.shape), t, drop)
        )
        loss, errors = self.objective(self.parameters.trained, pixels, noise, t, drop)
        loss.backward()  # type: ignore[no-untyped-call]
        rate = min(1.0, (progress + 1e-4) / WARM_UP) * (1.0 - progress)
        self.muon.step(MUON_RATE * rate)
        self.adam.param_groups[0]["lr"] = ADAM_RATE * rate
        self.adam.step()
        self.adam.zero_grad()
        self.steps += 1
        self._update_average()
        return float(errors[noisy:].detach().mean())

    @torch.no_grad()
    def _update_average(self) -> None:
        # A shorter memory at first, so that early checkpoints are not the starting point.
        keep = min(AVERAGING, self.steps / (self.steps + 9))
        torch._foreach_lerp_(
            list(self.average.values()), list(self.parameters.trained.values()), 1.0 - keep
        )

    def averaged_state(self) -> dict[str, Tensor]:
        """Averaged tensors under their published names, in their published shapes, on the CPU."""
        with torch.no_grad():
            state = self.parameters.state(self.average)
        shapes = {k: v.shape for k, v in FCDMDiffAE(CONFIG).state_dict().items()}
        return {k: v.cpu().reshape(shapes[k]).contiguous() for k, v in state.items()}


def decibels(mean_square: float, peak: float) -> float:
    return 10.0 * math.log10(peak**2 / max(mean_square, 1e-10))


def to_images(photo: Photo) -> Tensor:
    """[1, 3, H, W] in [-1, 1], sides cut to multiples of 16."""
    pixels = torch.from_numpy(trimmed(photo).copy())
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0


@torch.inference_mode()
def mean_psnr(model: FCDMDiffAE, photos: Iterable[Photo], num_steps: int = 1) -> float:
    """Mean over photographs of the 8 bit PSNR, from latents rounded to bfloat16 after whitening."""
    inference = InferenceConfig(num_steps=num_steps, seed=0)
    scores = []
    for photo in photos:
        images = to_images(photo)
        latents = model.encode(images.to(model.device, model.dtype)).bfloat16()
        decoded = model.decode(latents.float(), inference_config=inference).float().cpu()
        levels = ((decoded.clamp(-1.0, 1.0) + 1.0) * 127.5).round()
        error = (levels - (images + 1.0) * 127.5).square().mean()
        scores.append(decibels(float(error), 255.0))
    return float(np.mean(scores))


@torch.inference_mode()
def latent_statistics(model: FCDMDiffAE, photos: Iterable[Photo]) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel of the posterior modes of whole photographs, float32."""
    total = torch.zeros(CONFIG.bottleneck_dim, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    for photo in photos:
        mode = model.encode_posterior(to_images(photo).to(model.device)).mode()
        values = mode[0].flatten(1).double().cpu()
        total += values.sum(1)
        squares += values.square().sum(1)
        count += values.shape[1]
    mean = total / count
    return mean.float(), (squares / count - mean.square()).float()


def export(state: dict[str, Tensor], photos: Sequence[Photo], output: Path) -> None:
    """config.json and model.safetensors; the statistics are those of `photos`."""
    model = FCDMDiffAE(CONFIG)
    model.load_state_dict(state, strict=False)
    mean, var = latent_statistics(model, photos)
    tensors = {**state, "latent_norm_running_mean": mean, "latent_norm_running_var": var}
    stored = {
        name: tensor.to(torch.float32 if FAMILY.fp32_islands(name) else torch.bfloat16)
        for name, tensor in tensors.items()
    }
    # A reader never meets half a file.
    partial = output / "model.safetensors.partial"
    save_file(stored, partial)
    partial.replace(output / "model.safetensors")
    (output / "config.json").write_text(json.dumps(asdict(CONFIG), indent=2) + "\n")


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> FCDMDiffAE:
    """The exported model, as the package reads it."""
    with torch.device("meta"):
        model = FCDMDiffAE.from_config(json.loads((folder / "config.json").read_text()))
    path = folder / "model.safetensors"
    loaded = load_into(
        model, load_file(path), family=FAMILY, dtype=dtype, device=device, source=str(path)
    )
    assert isinstance(loaded, FCDMDiffAE)
    return loaded


class Log:
    """Lines to the terminal and to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(f"{line}\n")


def train(arguments: argparse.Namespace, log: Log) -> None:
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    photos = read_photos(arguments.images)
    held_out = photos[::HELD_OUT]
    kept = [photo for i, photo in enumerate(photos) if i % HELD_OUT]
    pca = principal_components(
        [shrunk(photo, scale) for photo in kept for scale in PCA_SCALES], arguments.seed
    )
    trainer = Trainer(
        pca_start(CONFIG, *pca, arguments.seed).to(device), device, arguments.compiled
    )
    pool = CropPool(kept, GRID * PATCH, arguments.seed)
    count = sum(tensor.numel() for tensor in trainer.parameters.trained.values())
    log(f"photographs {len(kept)}, held out {len(held_out)}, trained parameters {count:,}")

    began = saved = time.monotonic()
    running = math.nan

    def checkpoint(progress: float) -> None:
        export(trainer.averaged_state(), kept[:: 1 if progress >= 1.0 else 10], arguments.output)
        quality = mean_psnr(load(arguments.output, torch.float32, device), held_out)
        log(
            f"step {trainer.steps:6d}  seconds {time.monotonic() - began:6.0f}"
            f"  training {running:.3f}  held out {quality:.3f} dB"
        )

    checkpoint(0.0)
    progress = 0.0
    while progress < 1.0:
        error = decibels(trainer.step(pool.batch(arguments.batch), progress), 2.0)
        running = error if math.isnan(running) else 0.98 * running + 0.02 * error
        if trainer.steps == 1:
            began = saved = time.monotonic()  # compilation is not part of the schedule
        if arguments.steps:
            progress = trainer.steps / arguments.steps
        else:
            progress = (time.monotonic() - began) / (arguments.minutes * 60.0)
        if time.monotonic() - saved > arguments.save_minutes * 60.0 or progress >= 1.0:
            checkpoint(min(progress, 1.0))
            saved = time.monotonic()


def report(arguments: argparse.Namespace, log: Log) -> None:
    """PSNR of the exported weights on the evaluation images, in both dtypes."""
    paths = sorted(arguments.evaluate.glob("*.png"))
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    for dtype in (torch.float32, torch.bfloat16):
        model = load(arguments.output, dtype, torch.device(arguments.device))
        for num_steps in (1, 10):
            quality = mean_psnr(model, photos, num_steps)
            log(f"{len(photos)} images, {dtype}, {num_steps} steps: {quality:.3f} dB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="training tars")
    parser.add_argument("--output", type=Path, required=True, help="folder of weights and log")
    parser.add_argument("--evaluate", type=Path, help="folder of PNGs to measure at the end")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length of the schedule in time")
    length.add_argument("--steps", type=int, help="length of the schedule in steps")
    parser.add_argument("--batch", type=int, default=24, help="crops a step")
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    log = Log(arguments.output / "log.txt")
    log(f"batch {arguments.batch}, grid {GRID}, seed {arguments.seed}, {CONFIG}")
    train(arguments, log)
    if arguments.evaluate:
        report(arguments, log)


if __name__ == "__main__":
    main()
