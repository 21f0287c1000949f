"""Clocks that go backwards or are of the future change no byte and no decision of a job."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jobkit import encode, encode_job, environment, toy_pictures, tree

import latentcli
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.runtime.reporter import Reporter

SKEW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) { static long calls; return 3600 * __sync_add_and_fetch(&calls, 1); }
int clock_gettime(clockid_t id, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec -= jump();
    return done;
}
time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *to, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""
"""Every look at the clock is an hour earlier than the one before."""


@pytest.fixture
def backwards(tmp_path):
    """The environment of a process whose clock goes backwards."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler")
    (tmp_path / "skew.c").write_text(SKEW)
    library = tmp_path / "skew.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, tmp_path / "skew.c", "-ldl"], check=True
    )
    found = environment() | {"LD_PRELOAD": str(library)}
    look = [sys.executable, "-c", "import time; a = time.time(); print(time.time() < a - 3000)"]
    if subprocess.run(look, env=found, capture_output=True, text=True).stdout.strip() != "True":
        pytest.skip("the clock of a process cannot be changed here")
    return found


def test_a_clock_that_goes_backwards(backwards, model, tmp_path):
    pictures = toy_pictures(tmp_path / "pictures", 12, bad_every=6)
    encode(pictures, tmp_path / "reference", model)
    job = encode_job(pictures, tmp_path / "store", model)
    words = ["--model", model, "--device", "cpu", "--resize", "none", "--batch-size", "3"]
    words += ["--samples-per-shard", "4", "--workers", "1", "--no-self-check", "--json"]
    command = [sys.executable, "-m", "latentcli", "encode", *job.sources, *words]
    done = subprocess.run(
        [*command, "--output", job.output], env=backwards, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert tree(tmp_path / "store") == tree(tmp_path / "reference")
    figures = [document["seconds"], *(s["seconds"] for s in document["stages"].values())]
    assert all(0 <= seconds < 600 for seconds in figures)


def test_inputs_and_stores_from_the_future(model, tmp_path):
    pictures = toy_pictures(tmp_path / "in", 6)
    future = 4_000_000_000
    for path in pictures.rglob("*"):
        os.utime(path, (future, future))
    assert encode(pictures, tmp_path / "store", model)["encoded"] == 6
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (future, future))
    before = tree(tmp_path / "store")
    notes: list[str] = []
    done = run_encode(encode_job(pictures, tmp_path / "store", model), Reporter(note=notes.append))
    assert (done["encoded"], done["skipped"], notes) == (0, 6, [])
    assert tree(tmp_path / "store") == before


TELL = ("events.py", "watch.py")
"""Files that tell a person, or a log, at what time something was."""


def test_nothing_asks_what_time_it_is():
    """Durations are measured with clocks that never go back; nothing is decided by the time."""
    asked = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "ctime"}
    found = []
    files = Path(latentcli.__file__).parent.rglob("*.py")
    for path in [file for file in files if file.name not in TELL]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in asked:
                of = ast.unparse(node.value)
                if of in ("time", "datetime", "datetime.datetime", "date", "datetime.date"):
                    found.append(f"{path.name}:{node.lineno} {of}.{node.attr}")
    assert found == []
