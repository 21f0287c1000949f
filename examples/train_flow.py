"""Trains a small flow-matching transformer on a latent store, then draws pictures with it.

A store with captions or classes gives a conditional model, any other one an unconditional one:

    latentcli encode photos --size 64 -o photos.latents
    python examples/train_flow.py photos.latents --steps 2000 --out flow

It writes `flow/samples.png`, `flow/loss.csv` and `flow/model.safetensors`. On a GPU take more of
all: `--width 768 --depth 12 --batch 256 --steps 200000`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from zlib import crc32

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from latentcli import BucketBatchSampler, LatentDataset, collate, load_model

WORDS = 4096
"""Rows of the table of words; a word's row is chosen by its checksum."""


class Block(nn.Module):
    """Attention and a perceptron, both shifted, scaled and gated by the condition (adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens [N, T, D] and conditions [N, D] to tokens [N, T, D]."""
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(F.silu(condition))[
            :, None
        ].chunk(6, dim=-1)
        normal = F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale) + shift
        n, t, d = tokens.shape
        q, k, v = self.qkv(normal).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d)
        tokens = tokens + gate * self.merge(mixed)
        normal = F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale2) + shift2
        return tokens + gate2 * self.down(F.gelu(self.up(normal)))


class Flow(nn.Module):
    """The velocity of noisy latents [N, C, h, w] of any size, a token for each cell."""

    def __init__(self, channels: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.enter, self.leave = nn.Linear(channels, width), nn.Linear(width, channels)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.words = nn.EmbeddingBag(WORDS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, noisy: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Velocities [N, C, h, w] at times [N] in [0, 1], where 1 is noise."""
        h, w = noisy.shape[-2:]
        condition = self.time(waves(1000 * times, self.width)) + self.read(texts, noisy.device)
        tokens = self.enter(noisy.flatten(2).mT) + places(h, w, self.width, noisy.device)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.leave(F.layer_norm(tokens, tokens.shape[-1:])).mT.unflatten(2, (h, w))

    def read(self, texts: list[str], device: torch.device) -> Tensor:
        """The mean of each text's words, [N, D]; zeros for an empty one."""
        words = [text.lower().split() for text in texts]
        numbers = [[crc32(word.encode()) % WORDS for word in row] for row in words]
        starts = torch.tensor([0, *map(len, numbers)])[:-1].cumsum(0)
        flat = torch.tensor([n for row in numbers for n in row], dtype=torch.long)
        return self.words(flat.to(device), starts.to(device))


def waves(values: Tensor, width: int) -> Tensor:
    """Sines and cosines of values [...], [..., width]."""
    steps = torch.arange(width // 2, device=values.device)
    angles = values[..., None].float() * torch.exp(-math.log(1e4) * 2 / width * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def places(h: int, w: int, width: int, device: torch.device) -> Tensor:
    """Where each of h x w cells is, [h * w, width]: half of it the row, half the column."""
    rows, columns = (waves(torch.arange(n, device=device), width // 2) for n in (h, w))
    grid = [rows[:, None].expand(h, w, -1), columns[None].expand(h, w, -1)]
    return torch.cat(grid, dim=-1).flatten(0, 1)


def batches(loader: DataLoader, sampler: BucketBatchSampler) -> Iterator[dict]:
    """Batches without end, in another order each epoch."""
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def texts_of(batch: dict) -> list[str]:
    """What a picture is: its caption, else the folder that it lies in."""
    folders = [key.rpartition("/")[0] for key in batch["key"]]
    return [text or folder for text, folder in zip(batch["caption"], folders, strict=True)]


def loss_of(model: Flow, latents: Tensor, texts: list[str]) -> Tensor:
    """Squared error of the velocity, at times of a logistic normal; a tenth of the texts is hid."""
    times = torch.randn(len(latents), device=latents.device).sigmoid()
    noise, part = torch.randn_like(latents), times[:, None, None, None]
    kept = (torch.rand(len(texts)) >= 0.1).tolist()
    hidden = [text if keep else "" for text, keep in zip(texts, kept, strict=True)]
    velocity = model((1 - part) * latents + part * noise, times, hidden)
    return F.mse_loss(velocity, noise - latents)


@torch.no_grad()
def sample(model: Flow, noise: Tensor, texts: list[str], steps: int, guidance: float) -> Tensor:
    """Latents from noise [N, C, h, w] by Heun's method, with classifier-free guidance."""

    def velocity(latents: Tensor, time: float) -> Tensor:
        times = torch.full((len(latents),), time, device=latents.device)
        told = model(latents, times, texts)
        if guidance == 1 or not any(texts):
            return told
        return torch.lerp(model(latents, times, [""] * len(texts)), told, guidance)

    latents = noise
    for i in range(steps):
        now, then = 1 - i / steps, 1 - (i + 1) / steps
        slope = velocity(latents, now)
        if then > 0:
            slope = (slope + velocity(latents + (then - now) * slope, then)) / 2
        latents = latents + (then - now) * slope
    return latents


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images [N, 3, H, W] in [-1, 1] side by side, `columns` in a row."""
    rows = [torch.cat(list(row), dim=2) for row in images.split(columns)]
    pixels = ((torch.cat(rows, dim=1) + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--out", type=Path, default=Path("flow"))
    for name, default in {"steps": 2000, "batch": 64, "width": 256, "depth": 6}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)

    dataset = LatentDataset(options.store, dtype=torch.float32)
    sampler = BucketBatchSampler(dataset, options.batch, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    channels = dataset[0]["latent"].shape[0]
    model = Flow(channels, options.width, options.depth, options.width // 32).to(options.device)
    average = deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95))
    losses, start, batch = [], time.perf_counter(), {}
    for step, batch in enumerate(islice(batches(loader, sampler), options.steps), 1):
        part = step / (options.steps + 1)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1, 20 * part, 2 * (1 - part))
        loss = loss_of(model, batch["latent"].to(options.device), texts_of(batch))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        keep = min(0.999, step / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        losses.append(loss.item())
        if step % max(options.steps // 20, 1) == 0:
            recent = losses[-max(options.steps // 20, 1) :]
            rate = step * options.batch / (time.perf_counter() - start)
            print(f"step {step}: loss {sum(recent) / len(recent):.3f}, {rate:,.0f} latents/s")

    options.out.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{i},{loss:.5f}\n" for i, loss in enumerate(losses, 1))
    (options.out / "loss.csv").write_text(f"step,loss\n{rows}")
    save_file(average.state_dict(), options.out / "model.safetensors")
    texts = texts_of(batch)[:32]
    shape = (len(texts), *batch["latent"].shape[1:])
    latents = sample(average, torch.randn(shape).to(options.device), texts, 40, options.guidance)
    decoder = load_model(dataset.store.manifest.model["name"], device=options.device)
    latents = dataset.store.in_state(latents, decoder.spec.state)
    with torch.no_grad():
        grid(decoder.decode(latents), 8).save(options.out / "samples.png")
    print(f"Pictures: {options.out / 'samples.png'}")


if __name__ == "__main__":
    main()
