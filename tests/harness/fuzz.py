"""Runs encode jobs on damaged and strange files, and says what is wrong with how they ended.

A job must end by itself, with exit code 0 or 3, with one row for every input and a plain reason in
every failed row, without a process left behind, without a change to anything outside its output
folder, and within so much memory. Its store must be sound.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.fuzz_files import StrangeTar, strange_pictures, strange_tars
from harness.measure import family
from harness.processes import gone
from harness.stores import tree
from latentcli.shards.store.verify import verify_shards

UNPLAIN = re.compile(
    r"\bat 0x[0-9a-f]+|<[\w.]+ object|Traceback|File \"|[\n\r\0]|^\s*$|/latentcli/|/PIL/|\(\)$"
)
"""What a person is not to read in a reason: addresses, code, nothing at all."""
MOST_PIXELS = 20_000_000
"""--max-pixels of the jobs, which bounds their memory."""
TIME_LIMIT = 30
"""--time-limit of the jobs, seconds."""
HANGING, DYING = "took longer than", "the process that decoded it died"
"""Reasons that are rightly told, and of which there should be none."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A job that has ended, or was ended."""

    code: int | None
    """None where it had to be killed."""
    errors: str
    """What it wrote to stderr."""
    seconds: float
    main: float
    """Peak memory in MiB of its own process; `worker` of the largest loader process."""
    worker: float
    alone: bool
    """Whether none of its processes outlived it."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one kind of input."""

    what: str
    inputs: int
    rows: int
    failed: int
    slow: tuple[str, ...]
    """Sources that hung or ended a loader process."""
    stages: Mapping[str, int]
    """Failed rows by stage."""
    ran: Ran
    problems: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield (
            f"{self.inputs:,} {self.what}: {self.rows:,} rows, {self.failed:,} failed"
            f" ({', '.join(f'{n:,} at {stage}' for stage, n in sorted(self.stages.items()))}),"
            f" {len(self.slow)} hung or ended a process; exit code {self.ran.code},"
            f" {self.ran.seconds:.1f} s, main {self.ran.main:.0f} MiB, largest worker"
            f" {self.ran.worker:.0f} MiB"
        )
        yield from (f"  {source}" for source in self.slow)
        yield from (f"  PROBLEM: {problem}" for problem in self.problems)


def run(words: Sequence[str], folder: Path, seconds: float) -> Ran:
    """A latentcli command in the folder `folder`/cwd, watched until it ends or takes too long."""
    command = [sys.executable, "-m", "latentcli", *words]
    began = time.perf_counter()
    main = worker = 0.0
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=folder / "cwd",
            env=environment(folder),
            start_new_session=True,
        )
        while process.poll() is None and time.perf_counter() < began + seconds:
            held = family(process.pid)
            main = max(main, held.pop(process.pid))
            worker = max(worker, *held.values(), 0.0)
            time.sleep(0.05)
        hung = process.poll() is None
        process.kill()
        code = process.wait()
    told = (folder / "stderr").read_text(errors="replace")
    took = time.perf_counter() - began
    return Ran(None if hung else code, told, took, main, worker, gone(process.pid, 2))


def environment(folder: Path) -> dict[str, str]:
    """Of a job: one thread, and folders of its own for whatever it may leave."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LATENTCLI_")}
    own = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return kept | own


def encode_words(source: str, store: Path, model: str, workers: int, *more: str) -> tuple[str, ...]:
    """`latentcli encode` as it is run here."""
    return (
        *("encode", source, "--output", str(store), "--model", model, "--device", "cpu"),
        *("--size", "64", "--batch-size", "16", "--workers", str(workers), "--no-self-check"),
        *("--time-limit", str(TIME_LIMIT), "--max-pixels", str(MOST_PIXELS), "--quiet", *more),
    )


def write_pictures(folder: Path, count: int, seed: int) -> int:
    """Damaged pictures, and what only looks like one in a folder; how many inputs that is."""
    for name, data in strange_pictures(count, seed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    odd = folder / "odd"
    (odd / "a folder.jpg").mkdir(parents=True)
    links = {"gone.png": "nowhere", "loop.jpg": "loop.jpg", "zero.png": "/dev/zero"}
    for name, target in (links | {"memory.jpg": "/proc/self/mem"}).items():
        (odd / name).symlink_to(target)
    os.mkfifo(odd / "pipe.jpg")
    return count + len(links) + 2


def write_tars(folder: Path, tars: Iterable[StrangeTar]) -> dict[str, StrangeTar]:
    """The tars, by name in their folder."""
    written = {}
    for tar in tars:
        path = folder / tar.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar.data)
        written[tar.name] = tar
    return written


def seen_from_outside(folder: Path, *left_out: str) -> dict[str, tuple[int, ...]]:
    """Mode, size and time of everything below a folder, but for some names at its top."""
    found = {}
    for path in folder.rglob("*"):
        if path.relative_to(folder).parts[0] not in left_out:
            info = path.lstat()
            found[str(path)] = (info.st_mode, info.st_size, info.st_mtime_ns)
    return found


def records(store: Path) -> list[dict[str, Any]]:
    """The commit records of a store, in order."""
    found = sorted((store / "shards").glob("*.json"))
    return [json.loads(path.read_text()) for path in found]


def listed(store: Path) -> list[dict[str, Any]]:
    """The rows of inputs.jsonl."""
    return [json.loads(line) for line in (store / "inputs.jsonl").open()]


def wrong_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Failed rows without a stage or a plain reason, and keys that are there twice."""
    for row in rows:
        reason = row.get("error")
        if row["status"] not in ("ok", "failed"):
            yield f"{row['key']!r} has the status {row['status']}"
        elif row["status"] == "failed" and not (row.get("stage") and reason):
            yield f"{row['key']!r} failed without a stage or a reason"
        elif reason and (UNPLAIN.search(reason) or len(reason) > 1000):
            yield f"{row['key']!r} has a reason that is not plain: {reason[:300]!r}"
    twice = [key for key, count in Counter(row["key"] for row in rows).items() if count > 1]
    yield from (f"{key!r} has two rows" for key in twice)


def wrong_end(ran: Ran, failed: bool, memory: float) -> Iterator[str]:
    """What is wrong with how a job ended."""
    wanted = 3 if failed else 0
    if ran.code != wanted:
        how = "hung and was killed" if ran.code is None else f"ended with exit code {ran.code}"
        yield f"the job {how}, wanted was {wanted}: {ran.errors.strip()[-600:]}"
    if not ran.alone:
        yield "processes outlived the job"
    if "Traceback" in ran.errors:
        yield f"the job wrote a traceback: {ran.errors[-600:]}"
    if max(ran.main, ran.worker) > memory:
        yield f"memory grew to {max(ran.main, ran.worker):.0f} MiB, allowed are {memory:.0f}"


def lost_pictures(store: Path, inputs: int) -> Iterator[str]:
    """Inputs of a store of pictures that are not in the list and in one record each."""
    sources = [row["source"] for row in listed(store)]
    if len(sources) != inputs:
        yield f"{len(sources)} inputs are listed, {inputs} were given"
    done = [row["source"] for record in records(store) for row in record["rows"]]
    if done != sources:
        yield f"the records have {len(done)} rows, which are not those of the list"


def lost_samples(store: Path, tars: Mapping[str, StrangeTar]) -> Iterator[str]:
    """Tars of a store without a record, and samples without a row."""
    by_source = {record["source"]: record for record in records(store)}
    if by_source.keys() != tars.keys() or len(listed(store)) != len(tars):
        yield f"{len(by_source)} tars have a record, {len(tars)} were given"
    for key, source in ((row["key"], row["source"]) for row in listed(store)):
        rows = {row["key"] for row in by_source[source]["rows"]} if source in by_source else set()
        lost = {f"{key}/{sample}" for sample in tars[source].keys} - rows
        if lost:
            yield f"{source} has no row of {sorted(lost)[:3]}"
        if not rows and tars[source].data.strip(b"\0"):
            yield f"{source} has no row at all"


def examine(
    what: str,
    folder: Path,
    inputs: int,
    words: Sequence[str],
    memory: float,
    limit: float,
    twice: bool,
) -> Report:
    """Runs a job, `twice` in two ways; `words` are those of `encode_words` for the first."""
    store = Path(words[words.index("--output") + 1])
    before = seen_from_outside(folder, store.name, "again", "stderr", "tmp", "home")
    ran = run(words, folder, limit)
    problems: list[str] = []
    rows = [row for record in records(store) for row in record["rows"]]
    failed = [row for row in rows if row["status"] == "failed"]
    problems += wrong_end(ran, bool(failed), memory)
    problems += wrong_rows(rows)
    if twice:
        again = list(words)
        again[again.index("--output") + 1] = str(folder / "again")
        again[again.index("--workers") + 1] = "1"
        second = run(again, folder, limit)
        if (second.code, bytes_of(folder / "again")) != (ran.code, bytes_of(store)):
            problems.append(f"one loader process makes another store (exit code {second.code})")
    problems += [f"verify: {problem.what}" for problem in verify_shards(store)]
    after = seen_from_outside(folder, store.name, "again", "stderr", "tmp", "home")
    changed = sorted(before.items() ^ after.items())
    problems += [f"{path} was changed" for path, _ in changed]
    problems += [f"{path} was left behind" for path in (folder / "tmp").iterdir()]
    slow = [f"{row['source']}: {row['error']}" for row in failed if is_slow(row["error"])]
    stages = Counter(row["stage"] for row in failed)
    return Report(what, inputs, len(rows), len(failed), tuple(slow), stages, ran, tuple(problems))


def bytes_of(store: Path) -> dict[str, bytes | None]:
    """The files of a store, but for the list: some strange inputs have another time every time."""
    found = tree(store)
    found.pop("inputs.jsonl", None)
    return found


def is_slow(reason: str) -> bool:
    """Whether an input hung or ended a loader process."""
    return reason.startswith((HANGING, DYING))


def prepared(folder: Path) -> Path:
    """A folder with what `run` needs in it."""
    for name in ("cwd", "tmp", "home"):
        (folder / name).mkdir(parents=True)
    return folder


def fuzz_pictures(
    folder: Path, model: str, count: int, seed: int, memory: float, limit: float, twice: bool
) -> Report:
    """Damaged pictures through a job."""
    inputs = write_pictures(prepared(folder) / "pictures", count, seed)
    words = encode_words(
        str(folder / "pictures"), folder / "store", model, 2, "--samples-per-shard", "250"
    )
    report = examine("pictures", folder, inputs, words, memory, limit, twice)
    return with_problems(report, lost_pictures(folder / "store", inputs))


def fuzz_tars(
    folder: Path, model: str, count: int, seed: int, memory: float, limit: float, twice: bool
) -> Report:
    """Damaged tars through a job, and its store through a decode job."""
    tars = write_tars(prepared(folder) / "tars", strange_tars(count, seed))
    words = encode_words(
        f"{folder}/tars/**/*.tar*", folder / "store", model, 2, "--format", "webdataset"
    )
    report = examine("tars", folder, len(tars), words, memory, limit, twice)
    before = seen_from_outside(folder, "decoded", "stderr", "tmp", "home")
    out = ("decode", str(folder / "store"), "--output", str(folder / "decoded"), "--device", "cpu")
    decoded = run((*out, "--quiet"), folder, limit)
    files = sum(path.is_file() for path in (folder / "decoded").rglob("[!.]*"))
    problems = list(lost_samples(folder / "store", tars))
    if decoded.code != 0 or files != report.rows - report.failed:
        problems.append(
            f"decode ended with {decoded.code} and {files} files: {decoded.errors.strip()[-600:]}"
        )
    if seen_from_outside(folder, "decoded", "stderr", "tmp", "home") != before:
        problems.append("decode changed something outside its folder")
    return with_problems(report, problems)


def with_problems(report: Report, more: Iterable[str]) -> Report:
    """The report with further problems."""
    return replace(report, problems=(*report.problems, *more))
