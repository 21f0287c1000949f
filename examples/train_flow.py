"""Trains a small flow-matching transformer on a latent store, then draws pictures with it.

A store with captions or classes gives a conditional model, any other one an unconditional one:

    python examples/textures.py --out textures
    latentcli encode textures --size 96 --flip both -o textures.latents
    python examples/train_flow.py textures.latents --out flow

It writes `flow/samples.png` (two rows of the store above four that are drawn, a column a text),
`flow/loss.csv` and `flow/model.safetensors`. On a GPU take more of all: `--width 768 --depth 12
--batch 256 --steps 200000`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from copy import deepcopy
from itertools import cycle, islice
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

HEAD = 32
"""Channels of an attention head."""

EARLIEST = 0.05
"""Earlier times count as this one where a velocity is computed: its error grows without end."""


class Block(nn.Module):
    """Attention, then a convolution, each shifted, scaled and gated by the condition (adaLN-zero).

    A transformer has a perceptron in the convolution's place. This one sees a cell's neighbours
    from the first step, and cells fit each other long before attention alone would make them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, cells: Tensor, condition: Tensor, turns: Tensor) -> Tensor:
        """Cells [N, h, w, D], conditions [N, D] and angles [h * w, HEAD / 2] to cells."""
        n, h, w, d = cells.shape
        changes = self.modulation(F.silu(condition))[:, None, None].chunk(6, dim=-1)
        shift, scale, gate, shift2, scale2, gate2 = changes
        normal = F.layer_norm(cells, (d,)) * (1 + scale) + shift
        q, k, v = self.qkv(normal).view(n, h * w, 3, -1, HEAD).permute(2, 0, 3, 1, 4)
        q, k = (turned(F.rms_norm(part, (HEAD,)), turns) for part in (q, k))
        mixed = attention(q, k, v).transpose(1, 2).reshape(n, h, w, d)
        cells = cells + gate * self.merge(mixed)
        normal = F.layer_norm(cells, (d,)) * (1 + scale2) + shift2
        wide = self.up(normal.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return cells + gate2 * self.down(F.gelu(wide))


class Flow(nn.Module):
    """The velocity of noisy latents [N, C, h, w] of any size; each cell is a token.

    The network predicts clean latents, and the velocity is computed from them: a narrow network can
    hardly carry the noise of all channels to its end, as a velocity needs (arXiv 2511.13720).
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.enter, self.leave = nn.Linear(channels, width), nn.Linear(width, channels)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.words = nn.EmbeddingBag(WORDS, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, noisy: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Velocities [N, C, h, w] at times [N] in [0, 1], where 1 is noise."""
        h, w = noisy.shape[-2:]
        ages = 1000 * times[:, None] * rates(self.width // 2, 1e4, noisy.device)
        condition = self.time(waves(ages)) + self.read(texts, noisy.device)
        cells = self.enter(noisy.permute(0, 2, 3, 1))
        cells = cells + waves(places(h, w, self.width // 2, noisy.device)).to(cells.dtype)
        turns = places(h, w, HEAD // 2, noisy.device).flatten(0, 1)
        for block in self.blocks:
            cells = block(cells, condition, turns)
        clean = self.leave(F.layer_norm(cells, (self.width,))).permute(0, 3, 1, 2)
        return (noisy - clean.float()) / times.clamp(min=EARLIEST)[:, None, None, None]

    def read(self, texts: list[str], device: torch.device) -> Tensor:
        """The mean of each text's words, [N, D]; zeros for an empty one."""
        words = [text.lower().split() for text in texts]
        numbers = [[crc32(word.encode()) % WORDS for word in row] for row in words]
        starts = torch.tensor([0, *map(len, numbers)])[:-1].cumsum(0)
        flat = torch.tensor([n for row in numbers for n in row], dtype=torch.long)
        return self.words(flat.to(device), starts.to(device))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention; spelled out on a CPU, where the fused one is slow to go back in bfloat16."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.mT / math.sqrt(HEAD)).softmax(dim=-1) @ v


def rates(count: int, slowest: float, device: torch.device) -> Tensor:
    """From 1 down to 1 / slowest, [count]."""
    return slowest ** -torch.linspace(0, 1, count, device=device)


def waves(angles: Tensor) -> Tensor:
    """Sines and cosines of angles [..., n], [..., 2n]."""
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def places(h: int, w: int, count: int, device: torch.device) -> Tensor:
    """Where each of h x w cells is, as angles [h, w, count]: half the row's, half the column's."""
    steps = rates(count // 2, 100, device)
    rows, columns = (torch.arange(n, device=device)[:, None] * steps for n in (h, w))
    return torch.cat([rows[:, None].expand(h, w, -1), columns.expand(h, w, -1)], dim=-1)


def turned(parts: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding: pairs of parts [..., T, 2n] turned by angles [T, n]."""
    cos, sin = angles.cos().to(parts.dtype), angles.sin().to(parts.dtype)
    first, second = parts.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


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
    # Shifted towards noise: many channels at each cell drown in it later than a few would.
    times = (torch.randn(len(latents), device=latents.device) + 0.5).sigmoid()
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


def columns_of(batch: dict) -> tuple[list[str], Tensor]:
    """Up to 8 texts of a batch, one for each column, and two latents of the store for each."""
    texts = texts_of(batch)
    found = {text: [i for i, own in enumerate(texts) if own == text] for text in texts}
    members = {text: cycle(found[text]) for text in sorted(found)[:8]}
    chosen = list(members) * (8 // len(members))
    return chosen, batch["latent"][[next(members[text]) for text in 2 * chosen]]


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images [N, 3, H, W] in [-1, 1] side by side, `columns` in a row."""
    rows = images.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray(((rows + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--out", type=Path, default=Path("flow"))
    for name, default in {"steps": 2000, "batch": 32, "width": 192, "depth": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--float32", action="store_true", help="for a CPU without bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)

    dataset = LatentDataset(options.store, dtype=torch.float32)
    sampler = BucketBatchSampler(dataset, options.batch, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    channels = dataset[0]["latent"].shape[0]
    model = Flow(channels, options.width, options.depth).to(options.device)
    average = deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95), fused=True)
    precision = torch.autocast(options.device, torch.bfloat16, enabled=not options.float32)
    losses, start, batch = [], time.perf_counter(), {}
    for step, batch in enumerate(islice(batches(loader, sampler), options.steps), 1):
        part = step / (options.steps + 1)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1, 20 * part, 2 * (1 - part))
        with precision:
            loss = loss_of(model, batch["latent"].to(options.device), texts_of(batch))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        keep = (1 - 1 / step) ** 16  # a mean of the last 6 % of however many steps there were
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        losses.append(loss.item())
        if step % max(options.steps // 20, 1) == 0:
            recent = losses[-max(options.steps // 20, 1) :]
            rate = step * options.batch / (time.perf_counter() - start)
            mean = sum(recent) / len(recent)
            print(f"step {step}: loss {mean:.3f}, {rate:,.0f} latents/s", flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{i},{loss:.5f}\n" for i, loss in enumerate(losses, 1))
    (options.out / "loss.csv").write_text(f"step,loss\n{rows}")
    save_file(average.state_dict(), options.out / "model.safetensors")
    texts, known = columns_of(batch)
    noise = torch.randn(4 * len(texts), *known.shape[1:]).to(options.device)
    with precision:
        drawn = sample(average, noise, 4 * texts, 40, options.guidance)
    decoder = load_model(dataset.store.manifest.model["name"], device=options.device)
    latents = dataset.store.in_state(torch.cat([known.to(noise), drawn]), decoder.spec.state)
    with torch.no_grad():
        grid(decoder.decode(latents), len(texts)).save(options.out / "samples.png")
    print(f"Pictures: {options.out / 'samples.png'}")


if __name__ == "__main__":
    main()
