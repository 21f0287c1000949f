"""--on-error and --max-bad mean the same in every command that has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import clipkit
import pytest
import torch
from encodekit import LINEAR, pictures
from harness.videomae import tiny_folder
from jobkit import decode, encode, latents_of
from safetensors.torch import save, save_file
from tarjobkit import has_end, make_tar, members, standard_streams, tar_bytes

from latentcli.cli.app import main
from latentcli.core.errors import LatentCliError, TooManyFailures
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.runtime.failures import FEWEST_SEEN, check_failed
from latentcli.models.registry import load_model

COUNT = 6
BAD = (1, 3, 5)
COMMANDS = ("encode", "decode", "roundtrip", "video-embed")
CLIPS = ("encode", "decode", "roundtrip")
"""Those whose inputs are clips in a second set of tests; video-embed has no others."""


def clip_files_in(folder: Path, bad: Sequence[int] = BAD) -> Path:
    """Clips of 4 frames, some of which are none."""
    clipkit.clips_in(folder, [4] * COUNT)
    for number in bad:
        (folder / f"c{number:02d}.mp4").write_bytes(b"no clip")
    return folder


def picture_words(root: Path, verb: str) -> list[str]:
    """The command line of a job of six inputs, of which three are bad."""
    if verb == "encode":
        source = pictures(root / "in", ((64, 48),) * COUNT, bad=BAD)
        return [str(source), "-o", str(root / "store"), "--no-self-check", "--model", LINEAR]
    if verb == "roundtrip":
        return [str(pictures(root / "in", ((64, 48),) * COUNT, bad=BAD)), "--model", LINEAR]
    if verb == "decode":
        source = pictures(root / "in", ((64, 48),) * COUNT)
        encode(source, root / "store", LINEAR)
        latents = {
            name.split("/")[0]: latent * float("nan") if int(name[:4]) in BAD else latent
            for name, latent in latents_of(root / "store").items()
        }
        save_file(latents, root / "f.safetensors")
        return [str(root / "f.safetensors"), "-o", str(root / "out"), "--model", LINEAR]
    network = ["--weights", str(tiny_folder(root / "network")), "--frames", "4", "--size", "56"]
    return [str(clip_files_in(root / "in")), "-o", str(root / "x.safetensors"), *network]


def clip_words(root: Path, verb: str) -> list[str]:
    """The same of clips of four frames each."""
    if verb != "decode":
        source = clip_files_in(root / "in")
        output = ["-o", str(root / "store"), "--no-self-check"] if verb == "encode" else []
        return [str(source), *output, "--model", LINEAR]
    encode(clip_files_in(root / "in", bad=()), root / "store", LINEAR)
    for number in BAD:  # a frame behind the clip's last
        (root / "out" / f"c{number:02d}").mkdir(parents=True)
        (root / "out" / f"c{number:02d}" / "000004.png").write_bytes(b"")
    return [str(root / "store"), "-o", str(root / "out"), "--format", "png"]


@pytest.fixture(
    params=[*((verb, False) for verb in COMMANDS), *((verb, True) for verb in CLIPS)],
    ids=[*COMMANDS, *(f"{verb}-clips" for verb in CLIPS)],
)
def command(request, tmp_path):
    """A verb and its words, for pictures and for clips."""
    verb, clips = request.param
    words = (clip_words if clips else picture_words)(tmp_path, verb)
    return [verb, *words, "--device", "cpu", "--batch-size", "2"]


@pytest.fixture
def run(command, capsys):
    """Runs the command with more words: (exit code, what it said on stderr, without line ends)."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*command, *words])
        return code, capsys.readouterr().err.replace("\n", " ")

    return call


def name_of(number: int, text: str) -> bool:
    return f"c0{number}" in text or f"000{number}" in text


def test_on_error_stop_ends_the_job_at_the_first_failure(run):
    code, told = run("--on-error", "stop", "--quiet")
    assert code == 1
    message = told[told.index("error: ") :]
    assert name_of(1, message.split(" failed at ")[0]) and not name_of(3, message)
    assert "The job stops at the first failure (--on-error stop);" in message
    assert run("--on-error", "never", "--quiet")[0] == 2


@pytest.mark.parametrize("allowed", ["1", "33%"])
def test_the_job_stops_when_more_fail_than_may(run, allowed):
    code, told = run("--max-bad", allowed, "--quiet")
    assert code == 3
    message = told[told.index("error: ") :]
    assert f"2 inputs failed, and --max-bad {allowed} allows 1 of 6. The last was " in message
    assert name_of(3, message.split("The last was ")[1])
    assert "give a larger --max-bad" in message and not name_of(5, message)


@pytest.mark.parametrize("allowed", ["3", "50%", "100%"])
def test_a_job_with_as_many_as_may_fail_is_a_success(run, allowed):
    assert run("--max-bad", allowed)[0] == 0


def test_without_it_the_job_goes_on_to_its_end(run):
    code, told = run("--quiet")
    assert code == 3
    assert "3 of 6 inputs failed; --max-bad 3 accepts that. Everything else" in told


def test_a_number_that_is_none_stops_before_the_work(run):
    code, told = run("--max-bad", "some", "--quiet")
    assert code == 2 and "--max-bad is 'some'; give a number such as 10, or 0.5%." in told


def test_the_end_is_judged_by_all_inputs():
    check_failed(5, 1000, "0.5%")
    with pytest.raises(TooManyFailures, match=r"6 of 1,000 inputs failed; --max-bad 0\.5%"):
        check_failed(6, 1000, "0.5%")
    with pytest.raises(TooManyFailures, match=r"^6 of 6 inputs failed\. No input gave a result\.$"):
        check_failed(6, 6, None)


def test_of_inputs_that_are_not_counted_a_thousand_are_taken_for_granted(tmp_path, monkeypatch):
    assert FEWEST_SEEN == 1000
    files = members(20, 0, (64, 48), bad_every=5)
    make_tar(tmp_path / "in.tar", files)

    def roundtrip(max_bad: str) -> int:
        words = {"models": (LINEAR,), "device": "cpu", "workers": 0, "max_bad": max_bad}
        failed: int = run_roundtrip(RoundtripJob(sources=(str(tmp_path / "in.tar"),), **words))[
            "failed"
        ]
        return failed

    assert roundtrip("1%") == 4
    monkeypatch.setattr("latentcli.jobs.runtime.failures.FEWEST_SEEN", 10)
    with pytest.raises(TooManyFailures, match=r"2 inputs failed, .* allows 1 of 10"):
        roundtrip("15%")
    assert roundtrip("20%") == 4


def test_latents_of_a_stream_are_such_inputs(tmp_path, monkeypatch):
    channels = load_model(LINEAR).spec.channels
    values = [float("nan") if number % 5 == 4 else 0.0 for number in range(20)]
    files = [
        (f"{number:04d}.safetensors", save({"latent": torch.full((channels, 2, 2), value)}))
        for number, value in enumerate(values)
    ]

    def decode_stream(max_bad: str) -> int:
        with standard_streams(tmp_path / "ends", tar_bytes(files)):
            told = decode("-", tmp_path / "out", model=LINEAR, max_bad=max_bad, batch_size=2)
        failed: int = told["failed"]
        return failed

    assert decode_stream("1%") == 4
    monkeypatch.setattr("latentcli.jobs.runtime.failures.FEWEST_SEEN", 10)
    with pytest.raises(TooManyFailures, match=r"2 inputs failed, .* allows 1 of 10.*Files so far"):
        decode_stream("15%")
    assert decode_stream("20%") == 4


def test_a_stream_that_ends_at_a_failure_has_no_end_mark(tmp_path):
    channels = load_model(LINEAR).spec.channels
    latents = {f"k{number}": torch.zeros(channels, 2, 2) for number in range(3)}
    latents["k1"] += float("nan")
    save_file(latents, tmp_path / "f.safetensors")
    with standard_streams(tmp_path / "ends") as ends:
        assert decode(tmp_path / "f.safetensors", "-", model=LINEAR)["failed"] == 1
    assert has_end(ends.output)
    message = r"k1 failed at decode: .*; the tar stream ends without its end mark\.$"
    with (
        standard_streams(tmp_path / "cut") as ends,
        pytest.raises(LatentCliError, match=message),
    ):
        decode(tmp_path / "f.safetensors", "-", model=LINEAR, on_error="stop")
    assert not has_end(ends.output)
