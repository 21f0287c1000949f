"""Hostile inputs: refused with a row each, nothing outside the output folder, no shell unasked."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.fuzz_files import good_pictures, png, zeros
from harness.tars import END, base_256, member, pax
from jobkit import decode, encode, failures_of, rows_of

from latentcli.cli.app import main
from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.config import EncodeJob
from latentcli.shards.sources.own_output import MARK
from latentcli.shards.store.input_list import InputList, write_inputs

PICTURE = good_pictures()["rgb.png"]
GOOD = member("good.png", PICTURE) + member("good.txt", b"a cat")
REFUSED = {
    "up": (member("../escaped.png", PICTURE), "leave"),
    "inside": (member("a/../../escaped.png", PICTURE), "leave"),
    "backslash": (member("..\\escaped.png", PICTURE), "leave"),
    "absolute": (member("/tmp/escaped.png", PICTURE), "absolute name"),
    "drive": (member("C:\\escaped.png", PICTURE), "absolute name"),
    "pax name": (pax({"path": "../escaped.png"}) + member("fine.png", PICTURE), "leave"),
    "long name": (
        member("././@LongLink", b"../escaped.png\0", b"L") + member("fine.png", PICTURE),
        "leave",
    ),
    "symbolic link": (member("link.png", kind=b"2", link=b"/etc/passwd"), "symbolic link"),
    "hard link": (member("link.png", kind=b"1", link=b"good.png"), "hard link"),
    "character device": (member("device.png", kind=b"3"), "character device"),
    "block device": (member("device.png", kind=b"4"), "block device"),
    "named pipe": (member("pipe.png", kind=b"6"), "named pipe"),
    "twice": (member("same.png", PICTURE) + member("same.png", PICTURE), "there twice"),
    "bomb": (member("bomb.png", png((2**31 - 1, 2), 8, 2, zeros(99))), "--max-pixels"),
    "more than it says": (member("bomb.png", png((30_000, 30_000), 8, 0, zeros(10**7))), "limit"),
}
"""What stands in front of a good sample, and a word of the reason."""


def encode_tar(source: object, store: Path, model: str, **options: Any) -> dict[str, Any]:
    return encode(source, store, model, samples_per_shard=None, **options)


def write_tar(folder: Path, data: bytes, name: str = "a.tar") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def names(folder: Path) -> set[str]:
    """All that is in a folder, but for the marks of pictures that were decoded."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if Path(name).name != MARK}


@pytest.mark.parametrize("form", ["safetensors", "webdataset"])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_member_is_a_row_and_the_rest_goes_on(kind, form, model, tmp_path):
    data, word = REFUSED[kind]
    tar = write_tar(tmp_path / "in", data + GOOD + END)
    done = encode_tar(tar, tmp_path / "out" / "store", model, shard_format=form)
    assert (done["encoded"], done["failed"]) == (1, 1)
    (key, row), *more = failures_of(tmp_path / "out" / "store").items()
    assert not more and word in row["error"] and row["stage"] in ("read", "decode_image")
    assert key.startswith("a/") and ".." not in key.split("/")
    decode(tmp_path / "out" / "store", tmp_path / "out" / "pictures")
    assert names(tmp_path / "out" / "pictures") == {"a", "a/good.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize("size", [b"%012o" % (10 * 2**30), base_256(2**62)], ids=["10 GB", "4 EB"])
def test_a_header_of_gigabytes_takes_no_memory(size, model, tmp_path):
    """What it hides cannot be known: it and the rest are one row."""
    tar = write_tar(tmp_path / "in", GOOD + member("huge.png", size=size) + bytes(10_000) + END)
    tracemalloc.start()
    done = encode_tar(tar, tmp_path / "store", model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (done["encoded"], done["failed"]) == (1, 1) and peak < 100 * 2**20
    assert "huge" in next(iter(failures_of(tmp_path / "store").values()))["error"]


def test_an_extended_header_of_gigabytes(model, tmp_path):
    """Whether the sample in front of it is complete cannot be known, so it is that row."""
    huge = b"%012o" % (10 * 2**30)
    tar = write_tar(
        tmp_path / "in", GOOD + member("next.png", PICTURE) + member("x", kind=b"x", size=huge)
    )
    done = encode_tar(tar, tmp_path / "store", model)
    assert (done["encoded"], done["failed"]) == (1, 1)
    (row,) = failures_of(tmp_path / "store").values()
    assert "extended header of 10,737,418,240 bytes" in row["error"]


def test_a_gzip_bomb_is_unpacked_piece_by_piece(model, tmp_path):
    """A member of 50 MB of zeros is read as one, and refused; what follows is read."""
    big = member("huge.png", bytes(50 * 2**20))
    write_tar(tmp_path / "in", gzip.compress(big + GOOD + END, 1), "a.tar.gz")
    done = encode_tar(tmp_path / "in" / "a.tar.gz", tmp_path / "store", model)
    assert (done["encoded"], done["failed"]) == (1, 1)


@pytest.mark.parametrize(
    "bomb",
    [
        png((60_000, 60_000), 8, 0, zeros(1000)),
        png((16, 16), 8, 0, zeros(50_000_000)),
        png((16, 16), 8, 0, zeros(17 * 16), (b"zTXt", b"a\0\0" + zeros(200_000_000))),
        png((16, 16), 8, 0, zeros(17 * 16), (b"iCCP", b"a\0\0" + zeros(200_000_000))),
    ],
    ids=["claims", "more data", "text", "profile"],
)
def test_a_zip_bomb_of_a_picture_takes_no_memory(bomb, model, tmp_path):
    assert len(bomb) < 300_000
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bomb.png").write_bytes(bomb)
    tracemalloc.start()
    encode(tmp_path / "in", tmp_path / "store", model, size="16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (row,) = rows_of(tmp_path / "store")
    assert row["status"] == "ok" or row["stage"] == "decode_image"
    assert peak < 100 * 2**20


def test_keys_that_would_leave_the_folder_are_not_decoded(model, tmp_path):
    """A store that somebody else made, with keys that ours never have."""
    store = tmp_path / "store"
    tar = write_tar(tmp_path / "in", GOOD + END)
    encode_tar(tar, store, model)
    shard, record = store / "shards" / "000000.safetensors", store / "shards" / "000000.json"
    for evil in ("../../e", "/etc/ab"):
        key = evil.encode().ljust(6, b"x")[:6]  # as long as a/good
        shard.write_bytes(shard.read_bytes().replace(b"a/good", key))
        text = record.read_text().replace('"a/good"', json.dumps(key.decode()))
        record.write_text(text)
        done = decode(store, tmp_path / "deep" / "er" / "pictures")
        assert done["decoded"] == 0 and done["failed"] == 1
        assert names(tmp_path / "deep") == {"er", "er/pictures"}
        shard.write_bytes(shard.read_bytes().replace(key, b"a/good"))
        record.write_text(record.read_text().replace(json.dumps(key.decode()), '"a/good"'))


@pytest.fixture
def trap(tmp_path):
    """A command that leaves a trace, and the trace."""
    tar = write_tar(tmp_path / "in", GOOD + END)
    return f"pipe:touch {tmp_path}/trace; cat {tar}", tmp_path / "trace"


def sources_of(kind: str, command: str, folder: Path) -> str:
    """The command as a source: itself, in a list, or in a list within a brace list."""
    if kind == "itself":
        return command
    (folder / "list.txt").write_text(f"{folder}/in/a.tar\n{command}\n")
    return f"@{folder}/list.txt"


@pytest.mark.parametrize("kind", ["itself", "in a list"])
@pytest.mark.parametrize("verb", ["encode", "dry run"])
def test_a_command_is_refused_before_anything_runs(kind, verb, trap, model, tmp_path):
    command, trace = trap
    source = sources_of(kind, command, tmp_path)
    with pytest.raises(UsageError, match="--allow-pipe"):
        encode_tar(source, tmp_path / "store", model, dry_run=verb == "dry run")
    assert not trace.exists() and not (tmp_path / "store").exists()
    if verb == "encode":
        assert encode_tar(source, tmp_path / "store", model, allow_pipe=True)["encoded"] >= 1
        assert trace.exists()


@pytest.mark.parametrize("upper", ["PIPE:", " pipe:", "pipe://", "file://pipe:"])
def test_nothing_else_is_taken_for_a_command(upper, trap, model, tmp_path):
    command, trace = trap
    with pytest.raises(LatentCliError):
        encode_tar(upper + command.removeprefix("pipe:"), tmp_path / "store", model)
    assert not trace.exists()


def test_the_words_of_the_command_line_and_of_a_job_file(trap, model, tmp_path, capsys):
    command, trace = trap
    words = ["--model", model, "--device", "cpu", "--no-self-check", "--quiet"]
    words += ["--output", str(tmp_path / "store"), "--workers", "0"]
    job = tmp_path / "job.toml"
    job.write_text(f"[read]\nsources = [{json.dumps(command)}]\n")
    for sources in ([command], ["--config", str(job)]):
        assert main(["encode", *sources, *words]) == 2
        assert "--allow-pipe" in capsys.readouterr().err
    assert not trace.exists() and not (tmp_path / "store").exists()
    job.write_text(f"[read]\nsources = [{json.dumps(command)}]\nallow_pipe = true\n")
    assert main(["encode", "--config", str(job), *words]) == 0
    assert trace.exists()


def test_a_command_in_the_list_of_a_store_is_not_run_unasked(trap, model, tmp_path):
    """Somebody else's store, or one made with --allow-pipe before, may name commands."""
    command, trace = trap
    store = tmp_path / "store"
    tar = tmp_path / "in" / "a.tar"
    encode_tar(sources_of("in a list", command, tmp_path), store, model, allow_pipe=True)
    trace.unlink()
    unit = next(row.unit for row in InputList.open(store / "inputs.jsonl") if "pipe" in row.source)
    (store / "shards" / f"{unit:06d}.json").unlink()
    for planned in (True, False):
        with pytest.raises(UsageError, match="--allow-pipe allows the command to run"):
            encode_tar(tar, store, model, dry_run=planned)
    assert not trace.exists()
    done = encode_tar(tar, store, model, allow_pipe=True)
    assert trace.exists() and done["encoded"] == 1


def test_a_picture_in_a_store_s_list_is_never_a_command(trap, model, tmp_path):
    command, trace = trap
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PICTURE)
    encode(tmp_path / "pictures", tmp_path / "store", model)
    rows = list(InputList.open(tmp_path / "store" / "inputs.jsonl"))
    write_inputs(
        tmp_path / "store" / "inputs.jsonl",
        [*rows, replace(rows[0], key="evil", source=command, unit=1)],
    )
    done = encode(tmp_path / "pictures", tmp_path / "store", model)
    assert not trace.exists() and done["failed"] == 1


def test_allow_pipe_is_off_unless_asked_for():
    assert EncodeJob().allow_pipe is False
