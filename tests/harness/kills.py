"""Kills encode jobs at random moments, restarts them until done, and says what differs then."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.kill_paths import Job
from harness.processes import all_gone, gone, in_session, living, start, strike, wait_for
from harness.stores import Bucket, Seen, look

PHASES = ("start-up", "shards", "shards", "finish")
"""What a kill aims at; shards take most of a real job's time."""
ORDER = ("start-up", "shards", "finish")
OTHERS_OWN = ("ray", "torchinductor_*", "torchelastic_*")
"""What Ray, torch and torchrun leave in the system's folder after every run, undisturbed or not."""
DONE = (0, 3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One killed and restarted run."""

    kills: tuple[str, ...]
    """Where each kill struck."""
    problems: tuple[str, ...]
    restart: float
    """Seconds from the last start to the end."""


def undisturbed(command: Sequence[str] | Job, store: Path | str, units: int = 0) -> Job:
    """Runs the job once and measures its phases; RuntimeError where it fails."""
    job = command if isinstance(command, Job) else Job(tuple(command), units)
    seen = look(store)
    begin = time.perf_counter()
    process = start(job.command, store, job.variables)
    wait_for(seen.begun, process, seen.pause)
    startup = time.perf_counter() - begin
    wait_for(lambda: seen.records() >= job.units, process, seen.pause)
    writing = time.perf_counter() - begin - startup
    _, errors = process.communicate()
    if process.returncode not in DONE:
        raise RuntimeError(f"the undisturbed job failed:\n{errors.decode()}")
    return replace(job, reference=seen.contents(), startup=startup, writing=writing)


def kill_once(job: Job, store: Path | str, phase: str, chance: random.Random) -> str | None:
    """Starts the job and kills it in a phase; where it was, or None if it ended before."""
    process = start(job.command, store, job.variables)
    struck = kill_in(job, process, look(store), phase, chance)
    process.communicate()
    if struck is None or process.returncode in DONE:
        return None
    return struck


def kill_in(
    job: Job, process: subprocess.Popen[bytes], seen: Seen, phase: str, chance: random.Random
) -> str | None:
    """Strikes a running job in a phase; where it was, or None if it ended before."""
    if seen.records() >= job.units:
        phase = "start-up"  # there is nothing left to encode
    if phase == "start-up":
        reached = wait_for(seen.begun, process) if job.lives_on else True
        time.sleep(chance.uniform(0, 0.95 * job.startup))
    elif phase == "shards":
        wanted = chance.randint(min(seen.records() + 1, job.units), job.units)
        reached = wait_for(lambda: seen.records() >= wanted, process, seen.pause)
        time.sleep(chance.uniform(0, job.writing / job.units))
    else:
        last = job.units - 1 if job.lives_on else job.units
        reached = wait_for(lambda: seen.records() >= last, process, seen.pause)
        time.sleep(chance.uniform(0, 0.02))
    who, pids = job.victims(process, chance)
    if not reached or not pids or process.poll() is not None:
        return None
    strike(pids)
    return f"{who}{', ' if who else ''}{phase} at {seen.records()} of {job.units} units"


def check(job: Job, store: Path | str) -> list[str]:
    """What differs from the undisturbed run, in words."""
    found = look(store).contents()
    names = sorted(job.reference.keys() | found.keys())
    problems = [f"{name} is missing" for name in names if name not in found]
    problems += [f"{name} is too many" for name in names if name not in job.reference]
    both = job.reference.keys() & found.keys()
    problems += [f"{name} differs" for name in sorted(both) if found[name] != job.reference[name]]
    return problems + counted(found)


def counted(found: Mapping[str, bytes | None]) -> list[str]:
    """Inputs that are in no commit record, or in several."""
    lines = (found.get("inputs.jsonl") or b"").splitlines()
    listed = [json.loads(line) for line in lines]
    records = [json.loads(data) for name, data in found.items() if is_record(name) and data]
    tars = any("source" in record for record in records)
    done = [row["key"] for record in records for row in record["rows"]]
    named = [record["source"] for record in records] if tars else done
    lost = {row["source" if tars else "key"] for row in listed} - set(named)
    twice = len(done) - len(set(done)) + len(named) - len(set(named))
    told = {"inputs are lost": len(lost), "are there twice": twice}
    return [f"{count} {what}" for what, count in told.items() if count]


def is_record(name: str) -> bool:
    """Whether a file of a store is a commit record."""
    return re.fullmatch(r"shards/\d+\.json", name) is not None


def one_run(
    job: Job, store: Path | str, chance: random.Random, kills: int, left: Counter[str]
) -> Outcome:
    """A fresh store, killed up to `kills` times, then restarted until done, and checked.

    A kill that comes after the job's own end counts for nothing: then the run starts anew.
    `left` takes in what the killed processes left in the system's temporary folder.
    """
    struck: list[str] = []
    problems: list[str] = []
    while not struck:
        look(store).clear()
        for _ in range(kills):
            where = kill_once(job, store, chance.choice(PHASES), chance)
            if where is None:
                break
            struck.append(where)
            problems += [] if all_gone() else [f"outlived the kill: {living()}"]
            left.update(cleared(job))
    begin = time.perf_counter()
    problems += restarted(job, store)
    return Outcome(tuple(struck), tuple(problems), time.perf_counter() - begin)


def one_run_through(
    job: Job, store: Path | str, chance: random.Random, kills: int, left: Counter[str]
) -> Outcome:
    """A fresh store, and a job that is struck up to `kills` times and must get to its end."""
    struck: list[str] = []
    seen = look(store)
    while not struck:
        seen.clear()
        begin = time.perf_counter()
        process = start(job.command, store, job.variables)
        for phase in sorted((chance.choice(PHASES) for _ in range(kills)), key=ORDER.index):
            where = kill_in(job, process, seen, phase, chance)
            struck += [where] if where else []
        errors = process.communicate()[1].decode()
    problems = [] if process.returncode in DONE else [f"the job failed: {errors.strip()}"]
    problems += check(job, store) if process.returncode in DONE else []
    problems += [] if all_gone() else [f"outlived the job: {living()}"]
    left.update(cleared(job))
    return Outcome(tuple(struck), tuple(problems), time.perf_counter() - begin)


def cleared(job: Job) -> list[str]:
    """Empties the job's temporary folder; what was in it and is of ours, without its numbers."""
    if "TMPDIR" not in job.variables:
        return []
    found = []
    for path in sorted(Path(job.variables["TMPDIR"]).iterdir()):
        if any(path.match(pattern) for pattern in OTHERS_OWN):
            continue
        found.append(re.sub(r"(?<=latentcli-)\w+|\d+", "*", path.name))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def restarted(job: Job, store: Path | str) -> list[str]:
    """Runs the job to its end; what is then wrong, in words."""
    process = start(job.command, store, job.variables)
    _, errors = process.communicate()
    if process.returncode not in DONE:
        return [f"the restart failed: {errors.decode().strip()}"]
    left = [] if gone(process.pid) and all_gone() else [f"outlived the job: {living()}"]
    seen = look(store)
    if isinstance(seen, Bucket) and (begun := seen.unfinished()):
        left.append(f"{begun} uploads were begun and never ended")
    return check(job, store) + left + [f"{name} is left in TMPDIR" for name in cleared(job)]


def orphans_end(job: Job, store: Path) -> bool:
    """Whether the loader processes of a killed job end by themselves."""
    process = start(job.command, store)
    wait_for(lambda: any((store / "shards").glob("*.json")), process)
    if not in_session(process.pid):
        raise RuntimeError("the job has no loader processes to look at")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return gone(process.pid)
