"""A store that a job writes to, as others see it: they read little and disturb nobody."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from harness import s3
from harness.held_job import DATA, job_that_waits
from hypothesis import given
from hypothesis import strategies as st
from jobkit import encode, tree

from latentcli.cli.app import main
from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.jobs.store import watch as watch_module
from latentcli.jobs.store.list_size import END, ListSize, list_size
from latentcli.jobs.store.watch import MINUTE, StoreWatch, Written, document, pace
from latentcli.jobs.store.writer import Writer, WriterWatch
from latentcli.shards.store.holder import Holder, write_holder
from latentcli.shards.store.input_list import write_inputs
from latentcli.shards.store.lease import WATCHED, Claim


def shown(capsys, *words: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["watch", *map(str, words)])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


@pytest.fixture
def two_tars(tmp_path):
    """A tar that is a source beside the pipe, and comes before it."""
    (tmp_path / "a.tar").write_bytes(DATA)
    return [str(tmp_path / "a.tar")]


def committed(store: Path, process: subprocess.Popen[str]) -> None:
    """Waits for the first unit of a job."""
    looking = StoreWatch(store)
    while not store.exists() or not looking.look().written:
        assert process.poll() is None


def test_a_job_of_another_process_and_its_end(model, tmp_path, two_tars, capsys):
    store = tmp_path / "store"
    with job_that_waits(tmp_path, str(store), model, two_tars) as job:
        committed(store, job.process)
        before = tree(store)
        code, out = shown(capsys, store, "--once")
        first, second = out.splitlines()
        assert code == 0 and first.startswith("1 of 2 shards, 6 images, ")
        assert "last shard" in first
        who = f"latentcli encode …: process {job.process.pid} on host {socket.gethostname()}"
        assert second.startswith(f"{who}, since ")
        told = json.loads(shown(capsys, store, "--json")[1])
        assert (told["state"], told["encoded"], told["failed"]) == ("running", 6, 0)
        assert told["writer"]["pid"] == job.process.pid and told["writer"]["alive"] is True
        assert told["units"] == {"done": 1, "total": 2} and told["last_unit"].endswith("Z")
        assert tree(store) == before
        watching = subprocess.Popen(
            [sys.executable, "-m", "latentcli", "watch", str(store), "--every", "0.1"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        for _ in range(2):
            assert watching.stdout.readline().startswith("1 of 2 shards, 6 images, ")
        job.finish()
        *_, last = watching.communicate(timeout=120)[0].splitlines()
        assert watching.returncode == 0
        assert last == f"{store} is complete; no job is writing to it."


def test_a_killed_job_is_told_as_what_it_is(model, tmp_path, two_tars, capsys):
    store = tmp_path / "store"
    with job_that_waits(tmp_path, str(store), model, two_tars) as job:
        committed(store, job.process)
        job.process.kill()
        job.process.wait()
        assert (store / "holder.json").exists()
        code, out = shown(capsys, store, "--once")
        assert code == 0 and out.splitlines()[1] == (
            f"No job is writing to {store}, which has 1 of 2 shards. Run the same encode command"
            " again to finish the rest."
        )
        assert shown(capsys, store)[1].splitlines()[1] == out.splitlines()[1], "it ends by itself"
        told = json.loads(shown(capsys, store, "--json")[1])
        assert (told["state"], told["writer"], told["eta_seconds"]) == ("stopped", None, None)


def test_ctrl_c_ends_the_watching_alone(model, tmp_path, two_tars):
    store = tmp_path / "store"
    with job_that_waits(tmp_path, str(store), model, two_tars) as job:
        committed(store, job.process)
        for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, 75)):
            watching = subprocess.Popen(
                [sys.executable, "-m", "latentcli", "watch", str(store)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert watching.stdout is not None and watching.stdout.readline()
            watching.send_signal(number)
            errors = watching.communicate(timeout=60)[1]
            assert watching.returncode == code and "Traceback" not in errors
            assert errors == "" or code
        assert job.process.poll() is None


def test_it_ends_once_nobody_reads_it(model, tmp_path, two_tars):
    """As in `latentcli watch STORE | head -1`."""
    store = tmp_path / "store"
    with job_that_waits(tmp_path, str(store), model, two_tars) as job:
        committed(store, job.process)
        watching = subprocess.Popen(
            [sys.executable, "-m", "latentcli", "watch", str(store), "--every", "0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watching.stdout is not None and watching.stderr is not None
        assert watching.stdout.readline()
        watching.stdout.close()
        try:
            assert watching.wait(60) == 0
        finally:
            watching.kill()
        with watching.stderr:
            assert watching.stderr.read() == b""
        assert job.process.poll() is None


def test_on_a_terminal_it_is_redrawn_in_place(model, tmp_path, two_tars):
    store, shown = tmp_path / "store", b""
    with job_that_waits(tmp_path, str(store), model, two_tars) as job:
        committed(store, job.process)
        master, slave = pty.openpty()
        words = [sys.executable, "-m", "latentcli", "watch", str(store), "--every", "0.1"]
        env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"}
        watching = subprocess.Popen(words, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        while shown.count(b"1 of 2 shards") < 2:
            shown += os.read(master, 65536)
        assert b"\x1b[" in shown and f"process {job.process.pid}".encode() in shown
        job.finish()
        with suppress(OSError):  # Linux tells the end of a terminal by EIO
            while part := os.read(master, 65536):
                shown += part
        os.close(master)
        assert watching.wait(60) == 0 and b"is complete; no job is writing to it." in shown


def test_a_whole_store(mixed_store):
    told = document(StoreWatch(mixed_store).look())
    assert (told["state"], told["encoded"], told["failed"]) == ("complete", 23, 2)
    assert told["units"] == {"done": 7, "total": 7}
    assert told["inputs"] == {"done": 25, "total": 25, "exact": True}
    sizes = (path.stat().st_size for path in (mixed_store / "shards").glob("*.safetensors"))
    assert told["bytes"] == sum(sizes) and told["media"] == "images"


def test_no_store_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="is not a latent store"):
            StoreWatch(path).look()


def test_each_record_is_read_once_and_only_its_beginning(mixed_store, tmp_path, monkeypatch):
    store = shutil.copytree(mixed_store, tmp_path / "store")
    reads: list[tuple[str, int]] = []

    def noted(path: Path, begin: int, end: int) -> bytearray:
        reads.append((path.name, end))
        return real(path, begin, end)

    real = watch_module.read_part
    monkeypatch.setattr(watch_module, "read_part", noted)
    looking = StoreWatch(store)
    for _ in range(4):
        assert len(looking.look().written) == 7
    assert sorted(name for name, _ in reads) == [f"{unit:06d}.json" for unit in range(7)]
    assert max(end for _, end in reads) <= 1024
    reads.clear()
    record = store / "shards" / "000003.json"
    (store / "new").write_bytes(record.read_bytes().replace(b'"encoded": 4', b'"encoded": 3'))
    (store / "new").replace(record)
    (store / "shards" / "000005.json").unlink()
    for _ in range(4):
        state = looking.look()
        assert (len(state.written), state.total("encoded")) == (6, 23 - 1 - 3)
    assert [name for name, _ in reads] == ["000003.json"]


def test_a_record_that_is_no_record_is_a_unit_of_which_nothing_is_known(mixed_store, tmp_path):
    store = shutil.copytree(mixed_store, tmp_path / "store")
    (store / "shards" / "000003.json").write_text("{}")
    state = StoreWatch(store).look()
    assert (len(state.written), state.total("inputs")) == (7, 21)


@pytest.mark.parametrize("extra", [0, 40_000])
def test_the_end_of_a_long_list_is_enough(tmp_path, monkeypatch, extra):
    """Of a list of which all but the last unit are whole, it gives the same."""
    count = 16_000 + extra + 3
    rows = [InputRow(f"{n:06d}", f"some/folder/{n:06d}.jpg", n // 100) for n in range(count)]
    path = tmp_path / "inputs.jsonl"
    write_inputs(path, rows)
    size = path.stat().st_size
    assert size > END
    exact = list_size(path, size, 100)
    monkeypatch.setattr("latentcli.jobs.store.list_size.READ_WHOLE", 0)
    assert list_size(path, size, 100) == replace(exact, exact=False)
    assert exact == ListSize((count + 99) // 100, count, True)


units = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 50)), min_size=1, max_size=30)


@given(units, st.none() | st.integers(-1000, 0))
def test_the_rate_is_what_was_done_over_the_time_that_it_took(found, since):
    """Times in tenths of a second."""
    written = [Written(time / 10, inputs=inputs) for time, inputs in sorted(found)]
    began = None if since is None else since / 10
    rate = pace(written, lambda unit: unit.inputs, began)
    last = written[-1].time
    earlier = [unit.time for unit in written if unit.time <= last - MINUTE]
    counted = [unit for unit in written if unit.time > last - MINUTE]
    if not earlier and began is None:
        earlier, counted = [counted[0].time], counted[1:]
    begin = earlier[-1] if earlier else began
    if last == begin:
        assert rate is None
    else:
        assert rate * (last - begin) == pytest.approx(sum(unit.inputs for unit in counted))


def test_the_rate_of_a_job_that_goes_on_leaves_the_one_before_out():
    old = [Written(float(n), inputs=100) for n in range(10)]
    new = [Written(1000.0 + n, inputs=10) for n in range(1, 11)]
    assert pace([*old, *new], lambda unit: unit.inputs, 1000.0) == 10.0
    assert pace(old, lambda unit: unit.inputs, 1000.0) is None


def test_time_to_go(mixed_store):
    """Five of seven units in ten seconds, and a job of this process."""
    state = StoreWatch(mixed_store).look()
    units = [replace(unit, time=1000.0 + 2 * n) for n, unit in enumerate(state.written[:5], 1)]
    holder = Holder.here()
    writer = WriterWatch(mixed_store).look()
    assert writer is None
    writer = Writer(holder.host, holder.pid, holder.command, 1000.0, True)
    state = replace(state, written=units, writer=writer)
    done = sum(unit.inputs for unit in units)
    assert state.rate == done / 10 and state.eta == pytest.approx((25 - done) / (done / 10))


def test_a_lease_lives_while_its_counter_moves(tmp_path):
    now = [50.0]
    looking = WriterWatch(tmp_path, lambda: now[0])
    away = Holder("another-host", "", 7, 0, "latentcli encode …")

    def beat(number: int) -> None:
        fields = {name: getattr(away, name) for name in Holder.__dataclass_fields__}
        claim = Claim(**fields, token="t", beat=number, seconds=2.0)
        write_holder(tmp_path / "lease.json", claim)

    assert looking.look() is None
    beat(1)
    assert looking.look().alive is None
    beat(2)
    for _ in range(3):
        now[0] += 2.0
        writer = looking.look()
        assert (writer.alive, writer.pid, writer.host) == (True, 7, "another-host")
    now[0] += WATCHED * 2.0
    assert looking.look() is None
    beat(3)
    assert looking.look().alive is True


def test_what_runs_on_another_machine_is_not_known_to_live(mixed_store, tmp_path, capsys):
    store = shutil.copytree(mixed_store, tmp_path / "store")
    write_holder(store / "holder.json", Holder("another-host", "", 7, 0, "latentcli encode …"))
    code, out = shown(capsys, store, "--once")
    assert code == 0 and "process 7 on host another-host, since" in out
    assert "so it is not known here whether it still runs" in out
    ended = subprocess.Popen(["true"])
    ended.wait()
    write_holder(store / "holder.json", replace(Holder.here(), pid=ended.pid))
    assert StoreWatch(store).look().writer is None
    write_holder(store / "holder.json", replace(Holder.here(), pid=os.getpid()))
    assert StoreWatch(store).look().writer.alive is True


def test_while_a_job_makes_the_store(tmp_path):
    """It holds the folder before there is a manifest."""
    write_holder(tmp_path / "holder.json", Holder.here())
    told = document(StoreWatch(tmp_path).look())
    assert (told["state"], told["model"], told["units"]) == (
        "running",
        None,
        {"done": 0, "total": None},
    )


@s3.needs_s3
def test_on_s3(model, mixed, tmp_path, capsys):
    with s3.s3_server() as server:
        store = f"{server.bucket()}/store"
        encode(mixed, store, model)
        told = json.loads(shown(capsys, store, "--json")[1])
    assert (told["state"], told["encoded"], told["failed"]) == ("complete", 23, 2)
    assert told["inputs"] == {"done": 25, "total": 25, "exact": False}
