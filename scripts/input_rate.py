"""Measures what a training loop gains by a store, against encoding its pictures on the fly.

The same pictures come as latents from the store, by LatentDataset and a DataLoader; from the
shards, by safetensors alone; and from their files, decoded, resized and encoded for each batch, as
a loop without a store does it in one process. All ways take turns, and the best turn of each is
printed.

    latentcli encode photos --size 256 -o photos.latents
    python scripts/input_rate.py photos photos.latents
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch.utils.data import DataLoader

from latentcli import BucketBatchSampler, LatentDataset, collate, load_model
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.preprocess import PreprocessSpec, preprocess
from latentcli.models.base import Autoencoder


def from_store(dataset: LatentDataset, batch: int) -> Iterator[int]:
    """Latents in each batch of an epoch, shuffled."""
    sampler = BucketBatchSampler(dataset, batch)
    for item in DataLoader(dataset, batch_sampler=sampler, collate_fn=collate):
        yield len(item["latent"])


def from_shards(store: Path, batch: int) -> Iterator[int]:
    """The same by safetensors alone, in the order of the files."""
    for path in sorted((store / "shards").glob("*.safetensors")):
        with safe_open(path, "pt") as shard:
            names = list(shard.keys())
            for at in range(0, len(names), batch):
                yield len(torch.stack([shard.get_tensor(n) for n in names[at : at + batch]]))


def on_the_fly(
    model: Autoencoder, pictures: list[Path], spec: PreprocessSpec, batch: int
) -> Iterator[int]:
    """The same from the files."""
    for at in range(0, len(pictures), batch):
        paths = pictures[at : at + batch]
        decoded = [decode_image(path.read_bytes(), DecodePolicy()) for path in paths]
        pixels = torch.stack([preprocess(one.image, spec).pixels for one in decoded])
        with torch.inference_mode():
            yield len(model.encode(pixels.float() / 127.5 - 1))


def rate(read: Callable[[], Iterable[int]]) -> float:
    """Latents a second."""
    begin = time.perf_counter()
    count = sum(read())
    return count / (time.perf_counter() - begin)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = LatentDataset(options.store)
    manifest = dataset.store.manifest
    assert manifest is not None
    model = load_model(manifest.model["name"])
    sizing = manifest.preprocessing
    spec = PreprocessSpec(size=tuple(sizing["size"]), divisor=sizing["divisor"])
    files = sorted(path for path in options.pictures.rglob("*") if path.suffix in (".jpg", ".png"))
    some = files[: 4 * options.batch]
    ways: dict[str, Callable[[], Iterable[int]]] = {
        "LatentDataset": lambda: from_store(dataset, options.batch),
        "safetensors alone": lambda: from_shards(options.store, options.batch),
        f"on the fly, {manifest.model['name']}": lambda: on_the_fly(
            model, some, spec, options.batch
        ),
    }
    best = dict.fromkeys(ways, 0.0)
    for _ in range(options.turns):
        for name, read in ways.items():
            best[name] = max(best[name], rate(read))
    slowest = min(best.values())
    for name, found in best.items():
        print(f"{name:28} {found:9,.0f} latents/s  {found / slowest:7.1f} times")


if __name__ == "__main__":
    main()
