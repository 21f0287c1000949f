"""The loaders of others: torchdata's, accelerate's and Lightning's, and real processes of a job."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.consumers import consumer
from harness.made_up_stores import key_of, make_store
from harness.training_ranks import train_as_rank
from harness.warm import SERVER, warm_server

from latentcli import BucketBatchSampler, LatentDataset, LatentStream, collate

UNITS = [[(2, 3), (3, 2), (2, 3)], [(2, 2)] * 5, [(2, 3)] * 6 + [(3, 2)] * 2, [(2, 3)] * 3]
KEYS = sorted(key_of(u, i) for u, unit in enumerate(UNITS) for i, _ in enumerate(unit))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "store", UNITS)


def keys_of(batches: Any) -> list[str]:
    return [key for batch in batches for key in batch["key"]]


def stateful(store: Path, kind: str, workers: int) -> Any:
    stateful_dataloader = pytest.importorskip("torchdata.stateful_dataloader")
    if kind == "stream":
        stream = LatentStream(store, batch_size=3, shuffle_buffer=6)
        return stateful_dataloader.StatefulDataLoader(stream, batch_size=None, num_workers=workers)
    dataset = LatentDataset(store)
    return stateful_dataloader.StatefulDataLoader(
        dataset,
        batch_sampler=BucketBatchSampler(dataset, 3),
        collate_fn=collate,
        num_workers=workers,
    )


@pytest.mark.parametrize("kind", ["buckets", "stream"])
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_torchdata_goes_on_from_a_stop(store, kind, workers):
    """In the second epoch, after what came out, though workers are ahead of it; then once more."""
    loader = stateful(store, kind, workers)
    first = keys_of(loader)
    assert sorted(first) == KEYS
    whole = keys_of(loader)
    assert sorted(whole) == KEYS and whole != first
    loader = stateful(store, kind, workers)
    keys_of(loader)
    given: list[str] = []
    for stop in (2, 1):
        batches = iter(loader)
        for _ in range(stop):
            given += next(batches)["key"]
        state = loader.state_dict()
        del batches
        loader = stateful(store, kind, workers)
        loader.load_state_dict(json.loads(json.dumps(state)) if workers == 0 else state)
    given += keys_of(loader)
    assert given == whole
    after = keys_of(loader)
    assert sorted(after) == KEYS and after not in (first, whole)


def run_ranks(store: Path, folder: Path, *, accelerate: bool) -> list[dict[str, Any]]:
    """What two processes are given that find each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    warm_server()
    processes = [
        SERVER.Process(
            target=train_as_rank,
            args=(
                *(str(store), str(folder)),
                {**own, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                accelerate,
            ),
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(200)
    finally:
        for process in processes:
            process.kill()
    said = [path.read_text() for rank in range(2) if (path := folder / str(rank)).exists()]
    assert [process.exitcode for process in processes] == [0, 0], "\n".join(said)
    return [json.loads(text) for text in said]


def together(parts: list[list[list[str]]]) -> list[str]:
    """All keys that the ranks had, in equally many batches."""
    assert len({len(part) for part in parts}) == 1
    return [key for part in parts for keys in part for key in keys]


def test_two_ranks_train_on_everything_once(store, tmp_path):
    found = run_ranks(store, tmp_path, accelerate=False)
    for name in ("buckets", "stream"):
        assert sorted(together([rank[name] for rank in found])) == KEYS


@pytest.mark.slow
def test_two_ranks_of_accelerate_train_on_everything_once(store, tmp_path):
    """Slow for accelerate's own imports, in each rank."""
    for name in ("accelerate", "psutil"):
        pytest.importorskip(name)
    found = run_ranks(store, tmp_path, accelerate=True)
    epochs = [together([rank["accelerate"][epoch] for rank in found]) for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == KEYS and epochs[0] != epochs[1]
    for rank in found:
        # What accelerate takes of all batches is what the sampler would have given this rank.
        assert rank["accelerate"][0] == rank["buckets"]
        assert rank["lengths"] == [len(rank["buckets"])] * 2
        assert len(rank["skipped"]) == len(rank["buckets"]) - 2
    assert found[0]["refused"] == [True] * 3


def test_lightning_sets_the_epoch(store, tmp_path):
    lightning: Any = consumer("lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Conv2d(4, 1, 1)
            self.keys: list[list[str]] = []

        def on_train_epoch_start(self) -> None:
            self.keys.append([])

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            self.keys[-1] += batch["key"]
            return self.net(batch["latent"].float()).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    dataset, module = LatentDataset(store), Module()
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=BucketBatchSampler(dataset, 3), collate_fn=collate
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(module, loader)
    assert [sorted(keys) for keys in module.keys] == [KEYS] * 2
    assert module.keys[0] != module.keys[1]
