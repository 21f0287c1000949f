"""Video jobs, interrupted, killed and out of disk: the same bytes in the end, in little memory."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clipkit import MODEL, NUMBERS, clips_in, frames_of, unfinished
from harness.clip_files import make_clip
from harness.kill_paths import encode_command
from harness.kills import restarted, undisturbed
from harness.measure import measure
from harness.processes import start, wait_for
from jobkit import decode, encode, environment, interrupt_after, tree

from latentcli.core.errors import Interrupted
from latentcli.jobs.encode.way_out import BATCHES_BEHIND
from latentcli.jobs.runtime.meter import Snapshot
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.sources.own_output import MARK
from latentcli.shards.store.verify import verify_shards

KILLS = 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return clips_in(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def reference(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "reference"
    encode(clips, path, MODEL, samples_per_shard=2)
    return path


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_and_run_again(batches, number, clips, reference, tmp_path):
    store = tmp_path / "store"
    with pytest.raises(Interrupted, match="Run the same command again"):
        encode(clips, store, MODEL, interrupt_after(batches, number), samples_per_shard=2)
    assert unfinished(store) == []
    assert len(list((store / "shards").glob("*.json"))) < 3
    told = encode(clips, store, MODEL, samples_per_shard=2)
    assert told["encoded"] + told["skipped"] == len(NUMBERS)
    assert tree(store) == tree(reference)


def test_a_long_clip_is_left_at_once(clips, tmp_path):
    done: list[int] = []

    def progress(snapshot: Snapshot) -> None:
        done.append(snapshot.done)
        if len(done) == 2:
            signal.raise_signal(signal.SIGTERM)

    clip = make_clip(tmp_path / "long.mp4", 60)
    with pytest.raises(Interrupted):
        encode(clip, tmp_path / "store", MODEL, Reporter(progress=progress))
    # The writer tells how far it is, and may have some batches that were encoded before.
    assert done[:2] == [3, 6] and len(done) <= 3 + BATCHES_BEHIND < 60 / 3


@pytest.mark.parametrize("form", ["mp4", "png"])
def test_an_interrupted_decode_leaves_nothing_half_done(form, clips, reference, tmp_path):
    with pytest.raises(Interrupted, match="Add --skip-existing"):
        decode(reference, tmp_path / "out", interrupt_after(5), format=form, batch_size=2)
    assert unfinished(tmp_path / "out") == []
    if form == "mp4":
        assert sorted(tree(tmp_path / "out")) == [MARK, "c00.mp4"]
    told = decode(reference, tmp_path / "out", format=form, skip_existing=True, batch_size=2)
    assert told["skipped"] >= 1 and told["failed"] == 0
    decode(reference, tmp_path / "whole", format=form, batch_size=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Six long clips in three units, and what an undisturbed run makes of them."""
    root = tmp_path_factory.mktemp("long")
    source = clips_in(root / "clips", [100] * 6)
    command = encode_command(source, MODEL, workers=0, samples_per_shard=2)
    return undisturbed(command, root / "reference", 3)


def test_killed_in_the_middle_of_clips(job, tmp_path):
    chance, store, left = random.Random(0), tmp_path / "store", 0
    for _ in range(KILLS):
        process = start(job.command, store)
        before = len(records(store))
        wanted = chance.randint(before, 2)
        wait_for(
            lambda wanted=wanted, pid=process.pid: (
                len(records(store)) >= wanted and spools(store, pid) != []
            ),
            process,
        )
        time.sleep(chance.uniform(0, job.writing / 6))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        left += bool(spools(store, process.pid))
    assert left >= 2, "no kill struck within a clip"
    assert restarted(job, store) == []
    assert list(verify_shards(store)) == []


def records(store: Path) -> list[Path]:
    return list((store / "shards").glob("*.json"))


def spools(store: Path, pid: int) -> list[Path]:
    """What a process has spooled of a clip."""
    return list((store / "shards").glob(f".tmp-{pid}-*-latent"))


def test_a_disk_that_takes_no_more(job, tmp_path):
    words = [*job.command, "--output", str(tmp_path / "store")]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert (done.returncode, len(errors)) == (1, 1), done.stderr
    assert "larger than this system allows" in errors[0]
    assert unfinished(tmp_path / "store") == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path):
    peaks: dict[str, list[float]] = {"encode": [], "mp4": [], "png": []}
    for frames in (200, 1000):
        clip = make_clip(tmp_path / f"{frames}.mp4", frames, size=(320, 240))
        command = encode_command(clip, MODEL, workers=0, samples_per_shard=4)
        store = tmp_path / f"store{frames}"
        peaks["encode"].append(measure((*command, "--output", str(store))).main)
        for form in ("mp4", "png"):
            words = (*command[:3], "decode", str(store), "--format", form, "--device", "cpu")
            out = tmp_path / f"{form}{frames}"
            peaks[form].append(measure((*words, "--output", str(out))).main)
        assert [number for number, _ in frames_of(tmp_path / f"mp4{frames}" / f"{frames}.mp4")] == [
            *range(frames)
        ]
        assert len(list((tmp_path / f"png{frames}" / str(frames)).glob("*.png"))) == frames
    ratios = {name: long / short for name, (short, long) in peaks.items()}
    assert max(ratios.values()) < 1.2, (ratios, peaks)
