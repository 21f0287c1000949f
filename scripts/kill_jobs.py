"""Kills encode jobs at random moments, restarts them until done, and checks their stores.

Each run starts a fresh store, is sent a real SIGKILL one to three times (while it starts, while it
writes shards, while it finishes), and is restarted until it ends by itself. The store must then be
byte for byte that of an undisturbed job, with every input exactly once and without a temporary
file; none may be in the system's folder either, and no process may outlive the job. Exit code 1
where any of that fails. A path is a way to run a job: see tests/harness/kill_paths.py.

    python scripts/kill_jobs.py --path all --kills 20
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.kill_paths import PATHS, Job, Toy
from harness.kills import one_run, one_run_through, orphans_end, undisturbed
from harness.processes import ORPHAN_SECONDS, all_gone, living
from harness.stores import look
from harness.toys import toy_model

LAST_SECONDS = 120.0
"""Within which Ray's own processes end too."""


def try_path(name: str, toy: Toy, kills: int, chance: random.Random) -> int:
    """All runs of a path; how many of them went wrong."""
    scratch = toy.folder / "t"
    scratch.mkdir()
    failed = struck = 0
    slowest = 0.0
    left: Counter[str] = Counter()
    with PATHS[name](toy) as (root, found):
        place = (lambda store: f"{root}/{store}") if isinstance(root, str) else root.joinpath
        jobs = []
        for number, job in enumerate(found):
            private = {**job.variables, "TMPDIR": str(scratch)}
            job = undisturbed(replace(job, variables=private), place(f"reference{number}"))
            jobs.append(job)
            print(
                f"{name}: {job.units} units: undisturbed {job.startup:.1f} s start-up,"
                f" {job.writing:.1f} s encoding",
                flush=True,
            )
        if name.startswith(("torchrun", "ray")):
            single = undisturbed(toy.command(toy.pictures()), toy.folder / "single", toy.units)
            same = all(job.reference == single.reference for job in jobs)
            print(f"{name}: undisturbed {'equals' if same else 'DIFFERS FROM'} one process's store")
            failed += not same
        for number in range(1, kills + 1):
            job = jobs[number % len(jobs)]
            run = one_run_through if job.lives_on else one_run
            outcome = run(job, place(f"run{number}"), chance, chance.choice((1, 1, 2, 3)), left)
            verdict = "; ".join(outcome.problems) or "identical"
            print(f"run {number:2d}: killed {' / '.join(outcome.kills)}: {verdict}", flush=True)
            failed += bool(outcome.problems)
            struck += len(outcome.kills)
            slowest = max(slowest, outcome.restart)
            if not outcome.problems:
                look(place(f"run{number}")).clear()
    if not all_gone(LAST_SECONDS, passed_over=()):
        print(f"{name}: still there: {living()}")
        failed += 1
    told = ", ".join(f"{count} x {what}" for what, count in sorted(left.items())) or "nothing"
    print(
        f"{name}: {kills} runs, {struck} kills, {failed} of the runs not identical; the slowest"
        f" last run took {slowest:.1f} s; killed processes left in TMPDIR: {told}",
        flush=True,
    )
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--path", choices=[*PATHS, "all"], default="folder")
    parser.add_argument("--model", help="default: a toy model with random weights")
    parser.add_argument("--kills", type=int, default=20, help="runs, each killed at least once")
    parser.add_argument("--inputs", type=int, default=240)
    parser.add_argument("--samples-per-shard", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    failed = 0
    for name in PATHS if options.path == "all" else [options.path]:
        with tempfile.TemporaryDirectory(prefix="lk-", ignore_cleanup_errors=True) as folder:
            root = Path(folder)
            model = options.model or str(toy_model(root / "model"))
            sizes = options.inputs, options.samples_per_shard, options.workers
            toy = Toy(root, model, *sizes)
            failed += try_path(name, toy, options.kills, random.Random(options.seed))
            if name == "folder" and options.workers:
                job = Job(toy.command(toy.pictures()), toy.units)
                if not orphans_end(job, root / "orphans"):
                    print(f"loader processes of a killed job live over {ORPHAN_SECONDS:.0f} s")
                    failed += 1
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
