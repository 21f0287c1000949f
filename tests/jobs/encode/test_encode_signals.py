"""SIGTERM, SIGINT and SIGUSR1 on every path: 75, how to go on, no leftovers, then equal bytes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from harness.kill_paths import PATHS, Job, Toy
from harness.kills import cleared, restarted, undisturbed
from harness.processes import all_gone, living, marked, start, wait_for
from harness.s3 import MISSING
from harness.slow import slow
from harness.stores import look
from jobkit import encode

from latentcli.core.errors import Interrupted
from latentcli.jobs.runtime.process import STOPPING

GRACE = 60.0
"""Seconds in which a job must have ended, on a machine that does much else."""
TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1


@pytest.fixture(scope="module")
def job_of(model, tmp_path_factory):
    """A path in; where its stores are and its job, with what an undisturbed run gave, out."""
    with ExitStack() as stack:
        made: dict[str, tuple[Path | str, Job]] = {}

        def make(path: str) -> tuple[Path | str, Job]:
            if path == "remote" and MISSING:
                pytest.skip(f"not installed: {', '.join(MISSING)}")
            if path not in made:
                folder = tmp_path_factory.mktemp(path)
                (folder / "tmp").mkdir()
                root, jobs = stack.enter_context(PATHS[path](Toy(folder, model, 120, workers=1)))
                private = {**jobs[0].variables, "TMPDIR": str(folder / "tmp")}
                job = replace(jobs[0], variables=private | {"OMP_NUM_THREADS": "1"})
                made[path] = root, with_reference(path, job, root)
            return made[path]

        yield make


def with_reference(path: str, job: Job, root: Path | str) -> Job:
    """The job and what an undisturbed run gives: of pictures in a folder, in this process."""
    reference = within(root, "reference")
    if path not in ("folder", "torchrun"):
        return undisturbed(job, reference)
    encode(job.command[4], Path(reference), job.command[6])
    return replace(job, reference=look(reference).contents())


def within(root: Path | str, name: str) -> Path | str:
    return f"{root}/{name}" if isinstance(root, str) else root / name


def interrupt(job: Job, store: Path | str, number: signal.Signals, everybody: bool) -> str:
    """Sends a job a signal amidst its work; its words, once it has ended as it should."""
    seen = look(store)
    process = start(job.command, store, job.variables)
    assert wait_for(lambda: seen.records() >= 2, process, seen.pause), process.communicate()[1]
    # A terminal signals all processes of a job, and so do batch systems.
    for pid in marked(()) if everybody else [process.pid]:
        os.kill(pid, number)
    began = time.monotonic()
    errors = process.communicate(timeout=GRACE)[1].decode()
    assert process.returncode == Interrupted.exit_code, errors
    assert time.monotonic() - began < GRACE
    assert all_gone(), living()
    return errors


def no_leftovers(job: Job, store: Path | str) -> None:
    names = look(store).contents()
    assert not [name for name in names if ".tmp-" in name or name in ("holder.json", "lease.json")]
    assert cleared(job) == []


@pytest.mark.parametrize(
    ("path", "number", "everybody"),
    [
        ("folder", TERM, False),
        slow("folder", INT, True),
        slow("folder", USR1, True),
        slow("tar", INT, True),
        slow("tar", USR1, False),
        slow("webdataset", USR1, True),
        slow("webdataset", TERM, False),
        slow("remote", TERM, False),
        slow("remote", INT, True),
        slow("remote", USR1, True),
        slow("torchrun", INT, True),
        slow("torchrun", TERM, False),
        slow("torchrun", USR1, False),
        slow("torchrun", TERM, True),
    ],
)
def test_interrupted_and_finished_by_the_same_command(job_of, path, number, everybody):
    root, job = job_of(path)
    store = within(root, f"{number.name}-{everybody}")
    errors = interrupt(job, store, number, everybody)
    assert f"Stopped by {number.name}" in errors and "same command again" in errors
    assert "Traceback" not in errors
    no_leftovers(job, store)
    assert 2 <= look(store).records() < job.units
    assert restarted(job, store) == []


@pytest.mark.parametrize("number", STOPPING)
def test_interrupted_while_it_starts(job_of, number):
    """Before it has loaded what could finish anything."""
    root, job = job_of("folder")
    store = within(root, f"early-{number.name}")
    process = start(job.command, store, job.variables)
    maps = Path(f"/proc/{process.pid}/maps")
    assert wait_for(lambda: "libtorch" in maps.read_text(), process)
    process.send_signal(number)
    errors = process.communicate(timeout=GRACE)[1].decode()
    assert process.returncode == Interrupted.exit_code, errors
    *status, line = errors.splitlines()
    assert line.startswith(f"error: Stopped by {number.name}. Run the same command again")
    assert status in ([], ["Loading ..."])  # on a machine that is busy with other things
    assert cleared(job) == []


@pytest.mark.slow
def test_torchrun_itself_is_interrupted(job_of, model, tmp_path):
    """Its exit code is its own, but the ranks end in good order."""
    (tmp_path / "tmp").mkdir()
    with PATHS["torchrun"](Toy(tmp_path, model, 120, workers=1)) as (_, jobs):
        private = {**jobs[1].variables, "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
        job = undisturbed(replace(jobs[1], variables=private), tmp_path / "reference")
        store = tmp_path / "store"
        process = start(job.command, store, job.variables)
        assert wait_for(lambda: look(store).records() >= 2, process)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=GRACE)[1].decode()
        assert "Stopped by SIGTERM. " in errors and "Run the same command again" in errors
        assert all_gone(), living()
        no_leftovers(job, store)
        assert restarted(job, store) == []
