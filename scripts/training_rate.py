"""Measures how quickly one process reads a store for training, against plain safetensors reads.

A store of made-up latents is written to a temporary folder, or one is named. Each way reads all of
it in batches, in turns, so that all of them have the files in memory and the same load on the
machine; the best turn of each is printed, in samples per second. Exit code 1 where LatentDataset
reads less than --share of what safetensors alone does. What `check="open"` costs is measured on its
own: the first look at each shard reads all of it.

    python scripts/training_rate.py --channels 16 --side 32
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.made_up_stores import Kind, make_store

from latentcli import BucketBatchSampler, LatentDataset, LatentStream, collate


class Plain(Dataset[dict[str, Any]]):
    """Tensors by name from shards that all stay open, and nothing else."""

    def __init__(self, store: Path, dataset: LatentDataset) -> None:
        files = {int(path.stem): path for path in (store / "shards").glob("*.safetensors")}
        shards = {unit: safe_open(path, "pt") for unit, path in files.items()}
        units = dataset.index.units.tolist()
        self.rows = [
            (shards[unit], f"{key}/latent") for unit, key in zip(units, dataset.keys, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        shard, name = self.rows[index]
        return {"key": name, "latent": shard.get_tensor(name)}


def ways(store: Path, batch_size: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """What reads an epoch, by name."""
    bare, captions = LatentDataset(store, captions=False), LatentDataset(store)
    raw = LatentDataset(store, captions=False, state="raw")
    plain = Plain(store, bare)
    buckets = BucketBatchSampler(bare, batch_size)

    def loader(dataset: Dataset[Any]) -> Callable[[], Iterable[Any]]:
        return lambda: DataLoader(dataset, batch_sampler=buckets, collate_fn=collate)

    def stream(**options: Any) -> Callable[[], Iterable[Any]]:
        opened = LatentStream(store, batch_size=batch_size, **options)
        return lambda: opened

    def items() -> Iterator[Any]:
        order = list(range(len(plain)))
        random.Random(0).shuffle(order)
        return (plain[index] for index in order)

    return {
        "safetensors, in batches": loader(plain),
        "LatentDataset": loader(bare),
        "LatentDataset with captions": loader(captions),
        'LatentDataset state="raw"': loader(raw),
        "LatentStream": stream(captions=False),
        "LatentStream with captions": stream(),
        "safetensors, one by one": items,
    }


def seconds(read: Callable[[], Iterable[Any]]) -> float:
    """Processor time of an epoch: with warm files that is how long it takes on a quiet machine."""
    begin = time.process_time()
    for _ in read():
        pass
    return time.process_time() - begin


def cost_of_checks(store: Path) -> list[float]:
    """Seconds of a first epoch without and with check="open"."""
    best = []
    for check in ("none", "open"):
        # Opened anew: a shard is looked at once.
        opened = [LatentStream(store, captions=False, check=check) for _ in range(4)]
        best.append(min(seconds(lambda one=one: one) for one in opened))
    return best


def main() -> int:
    """Prints a table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, help="a store of safetensors shards (made up)")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--side", type=int, default=32, help="latent cells along a side")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--share", type=float, default=0.8)
    words = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = words.store
        if store is None:
            units = [[(words.side, words.side)] * 500] * (words.samples // 500)
            store = make_store(Path(folder) / "store", units, Kind(channels=words.channels))
        readers = ways(store, words.batch)
        best = dict.fromkeys(readers, float("inf"))
        for _ in range(words.turns):
            for name, read in readers.items():
                best[name] = min(best[name], seconds(read))
        count = len(LatentDataset(store, captions=False))
        plain = best["safetensors, in batches"]
        for name, took in best.items():
            print(f"{name:30} {count / took:9,.0f} samples/s  {plain / took:5.2f} of safetensors")
        size = sum(path.stat().st_size for path in (store / "shards").glob("*.safetensors"))
        without, checked = cost_of_checks(store)
        print(
            f'check="open": a first epoch of {size / 2**20:,.0f} MiB takes {checked:.2f} s'
            f" instead of {without:.2f} s ({size / 2**30 / max(checked - without, 1e-9):.2f} GiB/s)"
        )
    return int(plain / best["LatentDataset"] < words.share)


if __name__ == "__main__":
    sys.exit(main())
