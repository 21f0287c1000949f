"""Encode jobs killed at random moments and restarted until done; a verdict out.

Each run starts a fresh store, is sent a real SIGKILL one to three times (while it starts, while it
writes shards, while it finishes), and is restarted until it ends by itself. The folder must then be
byte for byte that of an undisturbed job, without a temporary file, with every input exactly once,
and no loader process may outlive its parent. Exit code 1 where any of that fails.

    python scripts/kill_test.py --kills 20
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ORPHAN_SECONDS = 20.0
"""Loader processes look for their parent every five seconds."""
PHASES = ("start-up", "shards", "shards", "finish")
"""What a kill aims at; shards take most of a real job's time."""
SIZES = ((64, 48), (48, 64), (64, 64), (80, 48))


@dataclass(frozen=True, slots=True)
class Job:
    """One encode job and what an undisturbed run of it gave."""

    command: tuple[str, ...]
    """Without the output folder."""
    units: int
    reference: Mapping[str, bytes | None]
    startup: float
    """Seconds until the store's first file."""
    writing: float
    """Seconds from there to the last commit record."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One killed and restarted run."""

    kills: tuple[str, ...]
    """Where each kill struck."""
    problems: tuple[str, ...]


def toy_model(folder: Path, seed: int = 0) -> Path:
    """A folder of config.json and model.safetensors: the FCDM family's toy size, seeded weights."""
    from safetensors.torch import save_file

    from latentcli.models.fcdm import FAMILY
    from latentcli.models.weights import random_state

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(FAMILY.tiny)))
    state = random_state(lambda: FAMILY.build(FAMILY.tiny, None), seed)
    save_file(state, folder / "model.safetensors")
    return folder


def toy_pictures(
    folder: Path, count: int, sizes: Sequence[tuple[int, int]] = SIZES, bad_every: int = 0
) -> Path:
    """Small JPEGs of these sizes in turn, in folders of a thousand; some of them are cut short."""
    import numpy as np
    from PIL import Image

    for i in range(count):
        width, height = sizes[i % len(sizes)]
        y, x = np.mgrid[0:height, 0:width] / 16
        waves = [np.sin(x * (1 + i % 7) + i), np.cos(y + i / 3), np.sin(x + y * (i % 5))]
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.round(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
        if bad_every and i % bad_every == bad_every - 1:
            path.write_bytes(path.read_bytes()[:300])
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder with its bytes (None for a folder), hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def start(job: Sequence[str], store: Path) -> subprocess.Popen[bytes]:
    """The job in a session of its own, so that its loader processes can be told."""
    return subprocess.Popen(
        [*job, "--output", str(store)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Waits until the condition holds (true) or the process has ended (false)."""
    while not condition():
        if process.poll() is not None:
            return condition()
        time.sleep(0.001)
    return True


def undisturbed(command: Sequence[str], store: Path, units: int) -> Job:
    """Runs the job once and measures its phases; RuntimeError where it fails."""
    begin = time.perf_counter()
    process = start(command, store)
    wait_for((store / "manifest.json").exists, process)
    startup = time.perf_counter() - begin
    last = store / "shards" / f"{units - 1:06d}.json"
    wait_for(last.exists, process)
    writing = time.perf_counter() - begin - startup
    _, errors = process.communicate()
    if process.returncode not in (0, 3):
        raise RuntimeError(f"the undisturbed job failed:\n{errors.decode()}")
    return Job(tuple(command), units, tree(store), startup, writing)


def kill_once(job: Job, store: Path, phase: str, chance: random.Random) -> str | None:
    """Starts the job and kills it in a phase; where it was, or None if it ended before."""
    process = start(job.command, store)
    shards = store / "shards"
    reached = True
    if phase == "start-up":
        time.sleep(chance.uniform(0, 0.95 * job.startup))
    elif phase == "shards":
        done = len(list(shards.glob("*.json")))
        wanted = chance.randint(min(done + 1, job.units), job.units)
        reached = wait_for(lambda: len(list(shards.glob("*.json"))) >= wanted, process)
        time.sleep(chance.uniform(0, job.writing / job.units))
    else:
        last = shards / f"{job.units - 1:06d}.json"
        reached = wait_for(last.exists, process)
        time.sleep(chance.uniform(0, 0.02))
    if reached:
        process.kill()
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return None
    return f"{phase} at {len(list(shards.glob('*.json')))} of {job.units} units"


def in_session(leader: int) -> list[int]:
    """Processes that were started by `leader`, itself left out."""
    return [pid for pid in _pids() if pid != leader and _session(pid) == leader]


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _session(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[3])


def gone(leader: int, seconds: float = ORPHAN_SECONDS) -> bool:
    """Whether all processes of a killed leader end within some seconds."""
    end = time.perf_counter() + seconds
    while in_session(leader):
        if time.perf_counter() > end:
            return False
        time.sleep(0.05)
    return True


def check(job: Job, store: Path) -> list[str]:
    """What differs from the undisturbed run, in words."""
    found = tree(store)
    names = sorted(job.reference.keys() | found.keys())
    problems = [f"{name} is missing" for name in names if name not in found]
    problems += [f"{name} is too many" for name in names if name not in job.reference]
    both = job.reference.keys() & found.keys()
    problems += [f"{name} differs" for name in sorted(both) if found[name] != job.reference[name]]
    return problems + counted(store)


def counted(store: Path) -> list[str]:
    """Inputs that are in no commit record, or in several."""
    listed = [json.loads(line)["key"] for line in (store / "inputs.jsonl").open()]
    done: list[str] = []
    for record in sorted((store / "shards").glob("*.json")):
        done += [row["key"] for row in json.loads(record.read_text())["rows"]]
    lost, twice = set(listed) - set(done), len(done) - len(set(done))
    return [f"{len(lost)} inputs are lost"] * bool(lost) + [f"{twice} are there twice"] * bool(
        twice
    )


def one_run(job: Job, store: Path, chance: random.Random, kills: int) -> Outcome:
    """A fresh store, killed up to `kills` times, then restarted until done, and checked.

    A kill that comes after the job's own end counts for nothing: then the run starts anew.
    """
    struck: list[str] = []
    while not struck:
        shutil.rmtree(store, ignore_errors=True)
        for _ in range(kills):
            where = kill_once(job, store, chance.choice(PHASES), chance)
            if where is None:
                break
            struck.append(where)
    return Outcome(tuple(struck), tuple(restarted(job, store)))


def restarted(job: Job, store: Path) -> list[str]:
    """Runs the job to its end; what is then wrong, in words."""
    process = start(job.command, store)
    _, errors = process.communicate()
    if process.returncode not in (0, 3):
        return [f"the restart failed: {errors.decode().strip()}"]
    left = [] if gone(process.pid) else ["loader processes outlived the job"]
    return check(job, store) + left


def orphans_end(job: Job, store: Path) -> bool:
    """Whether the loader processes of a killed job end by themselves."""
    process = start(job.command, store)
    wait_for(lambda: any((store / "shards").glob("*.json")), process)
    if not in_session(process.pid):
        raise RuntimeError("the job has no loader processes to look at")
    process.kill()
    process.communicate()
    return gone(process.pid)


def encode_command(
    pictures: Path, model: str, workers: int, samples_per_shard: int
) -> tuple[str, ...]:
    """`latentcli encode` as it is run here."""
    return (
        *(sys.executable, "-m", "latentcli", "encode", str(pictures), "--model", model),
        *("--resize", "none", "--batch-size", "3", "--workers", str(workers), "--max-bad", "100%"),
        *("--samples-per-shard", str(samples_per_shard), "--no-self-check", "--device", "cpu"),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="default: a toy model with random weights")
    parser.add_argument("--kills", type=int, default=20, help="runs, each killed at least once")
    parser.add_argument("--inputs", type=int, default=240)
    parser.add_argument("--samples-per-shard", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="latentcli-kill-") as name:
        folder = Path(name)
        model = options.model or str(toy_model(folder / "model"))
        pictures = toy_pictures(folder / "pictures", options.inputs, bad_every=10)
        units = -(-options.inputs // options.samples_per_shard)
        command = encode_command(pictures, model, options.workers, options.samples_per_shard)
        job = undisturbed(command, folder / "reference", units)
        print(
            f"{options.inputs} inputs in {units} units, {options.workers} workers: undisturbed"
            f" {job.startup:.1f} s start-up, {job.writing:.1f} s encoding"
        )
        failed = kills = 0
        for number in range(1, options.kills + 1):
            wanted = chance.choice((1, 1, 2, 3))
            outcome = one_run(job, folder / f"run{number}", chance, wanted)
            verdict = "; ".join(outcome.problems) or "identical"
            print(f"run {number:2d}: killed {', '.join(outcome.kills)}: {verdict}", flush=True)
            failed += bool(outcome.problems)
            kills += len(outcome.kills)
        orphaned = bool(options.workers) and not orphans_end(job, folder / "orphans")
    print(f"{options.kills} runs, {kills} kills, {failed} of the runs not identical")
    if orphaned:
        print(f"loader processes of a killed job live longer than {ORPHAN_SECONDS:.0f} s")
    return int(failed > 0 or orphaned)


if __name__ == "__main__":
    raise SystemExit(main())
