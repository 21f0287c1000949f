"""Every command on real pictures and a real toy model, from its words to its files."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import pytest
from clikit import Run, on_terminal

ROOT = Path(__file__).resolve().parents[2]
JOB_FILES = sorted((ROOT / "configs" / "jobs").glob("*.toml"))
PSNR = ("mean", "std", "median", "min", "P5", "P95", "max")

pytestmark = pytest.mark.usefixtures("pictures")


def test_encode_says_where_the_store_is_and_what_comes_next(cli: Run, toy: list[str]) -> None:
    made = cli("encode", "images", *toy, "--size", 32, "-o", "my store.latents")
    assert made.code == 0
    assert made.out == ""
    assert "encode 4/4" in made.err
    assert "Encoded 4 images with " in made.err
    assert "Store: my store.latents (1 shard" in made.err
    assert "latentcli decode 'my store.latents'" in made.err
    assert "No --model given" not in made.err
    assert "\x1b" not in made.err


def test_the_same_command_again_has_nothing_to_do(cli: Run, store: Path, toy: list[str]) -> None:
    again = cli("encode", "images", *toy, "--size", 32, "-o", store)
    assert again.code == 0
    assert "Nothing to do: 4 images encoded already" in again.err


def test_encode_json(cli: Run, toy: list[str]) -> None:
    (Path("images") / "bad.png").write_text("no picture")
    command = ("encode", "images", *toy, "--size", 32, "-o", "out", "--json")
    made = cli(*command)
    assert made.code == 3
    document = made.document
    assert (document["encoded"], document["skipped"], document["failed"]) == (4, 0, 1)
    assert document["store"] == "out"
    assert set(document["stages"]) >= {"read", "decode_image", "preprocess", "encode", "write"}
    assert "1 of 5 inputs failed; --max-bad 1 accepts that" in made.err
    assert cli(*command, "--max-bad", "20%").code == 0
    assert cli(*command, "--max-bad", "19%").code == 3
    human = cli(*command[:-1], "--max-bad", "1")
    assert human.code == 0
    assert "1 input failed, listed in out/failures.jsonl:\n  1 x decode_image: " in human.err
    assert ", as in bad\n" in human.err and ", as in bad\n" in cli("inspect", "out").out


def test_quiet_and_dry_run(cli: Run, toy: list[str]) -> None:
    command = ("encode", "images", *toy, "--size", 32, "-o", "out")
    planned = cli(*command, "--dry-run", "--quiet")
    assert planned.out.startswith("Would encode 4 images with ")
    assert planned.err == ""
    assert cli(*command, "--dry-run", "--json").document["to_encode"] == 4
    assert not Path("out").exists()
    assert (cli(*command, "--quiet").err, Path("out").is_dir()) == ("", True)


def test_variables_beat_the_job_file_and_flags_beat_both(
    cli: Run, toy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("job.toml").write_text(
        "[preprocess]\nsize = 64\nfilter = 'box'\n[batch]\nbatch_size = 3\n"
        "[read]\nsources = ['images']\n[write]\noutput = 'out'\nsamples_per_shard = 2\n"
        "[decode_image]\nalpha = 'black'\n"
    )
    monkeypatch.setenv("LATENTCLI_SIZE", "48")
    monkeypatch.setenv("LATENTCLI_FILTER", "bicubic")
    monkeypatch.setenv("LATENTCLI_SAMPLE", "7")
    monkeypatch.setenv("LATENTCLI_CONFIG", "job.toml")
    made = cli("encode", *toy, "--size", "32")
    assert made.code == 0, made.err
    spec = json.loads(Path("out/manifest.json").read_text())["spec"]
    assert spec["preprocess"]["size"] == [32, 32]
    assert spec["preprocess"]["filter"] == "bicubic"
    assert spec["encode"]["batch_size"] == 3
    assert spec["latents"]["sample"] == 7
    assert spec["decode_image"]["alpha"] == "black"
    assert len(list(Path("out/shards").glob("*.safetensors"))) == 2


def test_the_variable_of_the_weights_is_no_option(
    cli: Run, toy: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names a folder of folders, one per preset, and must not become --weights."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "weights"))
    assert cli("encode", "images", *toy, "--size", 32, "-o", "out").code == 0


def test_decode(cli: Run, store: Path) -> None:
    made = cli("decode", store, "-o", "back", "--format", "jpeg", "--workers", 1, "--device", "cpu")
    assert made.code == 0
    assert "Decoded 4 images" in made.err
    assert "Pictures: back" in made.err
    assert len(list(Path("back").rglob("*.jpg"))) == 4
    kept = cli("decode", store, "-o", "back", "--format", "jpeg", "--skip-existing", "--json")
    assert (kept.document["decoded"], kept.document["skipped"]) == (0, 4)
    assert kept.document["output"] == "back"


def test_inspect(cli: Run, store: Path) -> None:
    shown = cli("inspect", store)
    assert (shown.code, shown.err) == (0, "")
    assert "f16c8" in shown.out
    assert "8x2x2 (4)" in shown.out
    document = cli("inspect", store, "--json").document
    assert document["encoded"] == 4
    assert document["totals"]["inputs"] == 4


def test_verify(cli: Run, store: Path) -> None:
    good = cli("verify", store, "--samples", 2, "--device", "cpu")
    assert good.code == 0, good.err
    assert "problems" in good.out
    assert "none" in good.out
    shard = next(store.glob("shards/*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    bad = cli("verify", store, "--samples", 0)
    assert bad.code == 1
    assert "000000" in bad.out
    assert "failed the check: 1 problem" in bad.err
    document = cli("verify", store, "--samples", 0, "--json").document
    assert document["ok"] is False
    assert len(document["problems"]) == 1


def test_a_roundtrip_says_how_large_its_page_is(cli: Run, tiny_model: Path, tmp_path: Path) -> None:
    command = ("roundtrip", "images", "--model", tiny_model, "--workers", 0, "--report")
    shown = cli(*command, tmp_path / "page")
    assert re.search(rf"Page: {tmp_path}/page/index.html \(\d+\.\d [KM]iB\)", shown.err)
    shown = cli(*command, tmp_path / "one.html", "--single-file")
    size = (tmp_path / "one.html").stat().st_size / 2**10
    assert f"Page: {tmp_path}/one.html ({size:.1f} KiB)" in shown.err
    refused = cli(*command, tmp_path / "one", "--single-file")
    assert refused.code == 2 and "ends in .html" in refused.err


def test_roundtrip(cli: Run, tiny_model: Path) -> None:
    other = shutil.copytree(tiny_model, "other")
    command = ("roundtrip", "images", "--model", tiny_model, "--model", other, "--workers", 0)
    shown = cli(*command, "--size", 32, "--save", "kept", "--device", "cpu")
    assert shown.code == 0, shown.err
    header = next(line for line in shown.out.splitlines() if "median" in line)
    assert header.split() == ["model", "latents", *PSNR, "SSIM", "SSIM", "gauss"]
    assert "Difference to tiny" in shown.out
    assert "\x1b" not in shown.out
    assert len(list(Path("kept").rglob("*.png"))) == 8
    document = cli(*command, "--size", 32, "--json").document
    assert [m["model"] for m in document["models"]] == ["tiny", "other"]
    assert document["models"][0]["psnr"].keys() >= {"mean", "std", "median", "p5", "p95"}
    assert document["delta"][0]["psnr"]["mean"] == 0.0


def test_bench(cli: Run, tiny_model: Path) -> None:
    command = ("bench", "--model", tiny_model, "--repeats", 1, "--warmup", 0, "--device", "cpu")
    shown = cli(*command, "--resolution", "32,64x32", "--batch", "1", "--batch", "2")
    assert shown.code == 0, shown.err
    assert "64x32" in shown.out
    rows = cli(*command, "--resolution", 32, "--batch", 1, "--op", "encode", "--json").document
    assert [row["op"] for row in rows["rows"]] == ["encode"]


def test_bench_stages(cli: Run, tiny_model: Path) -> None:
    command = ("bench", "images", "--stages", "--model", tiny_model, "--size", 32)
    shown = cli(*command, "--workers", 0, "--device", "cpu")
    assert shown.code == 0, shown.err
    assert "decode_image" in shown.out
    assert "model alone" in shown.out


def test_models(cli: Run) -> None:
    shown = cli("models")
    assert (shown.code, shown.err) == (0, "")
    row = next(line for line in shown.out.splitlines() if line.startswith("semdisdiffae "))
    assert "88.8M" in row
    assert "f16c128" in row
    assert "data-archetype/semdisdiffae" in row
    by_name = {entry["name"]: entry for entry in cli("models", "--json").document}
    assert by_name["full_capacitor"]["size_divisor"] == 32
    assert by_name["fcdm_nano"]["weights"] == "bundled"


def test_the_bundled_model_is_used_where_none_is_named(cli: Run) -> None:
    made = cli("encode", "images", "--size", 32, "-o", "out", "--workers", 0, "--no-self-check")
    assert made.code == 0, made.err
    assert made.err.startswith("No --model given: using the small bundled fcdm_nano.")


def test_a_live_display_on_a_terminal_and_json_on_stdout(toy: list[str]) -> None:
    words = ["-m", "latentcli", "encode", "images", *toy, "--size", "32", "-o", "out", "--json"]
    code, out, shown = on_terminal([sys.executable, *words], columns=70)
    assert code == 0, shown
    assert json.loads(out)["encoded"] == 4
    assert "\x1b[" in shown
    assert "4/4" in shown
    assert "decode_image" in shown


def test_sigterm_is_75_and_the_same_command_finishes(toy: list[str], cli: Run) -> None:
    source = next(Path("images").iterdir())
    for index in range(400):
        os.link(source, f"images/copy {index}.png")
    options = ["--size", "32", "--batch-size", "1", "--samples-per-shard", "10", "-o", "out"]
    command = ["encode", "images", *toy, *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "latentcli", *command, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(Path("out/shards").glob("*.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert json.loads(out)["exit_code"] == 75
    assert "error: Stopped by SIGTERM. " in err and " are kept" in err
    assert "Run the same command again to finish the rest." in err
    rest = cli(*command, "--json").document
    assert rest["skipped"] > 0
    assert rest["encoded"] + rest["skipped"] == 404


def test_there_are_job_files() -> None:
    assert {path.stem for path in JOB_FILES} >= {"encode_256", "decode_png", "encode_tars"}


def make_tars(images: Path, shards: Path) -> None:
    """Two tars of the pictures, each with a caption."""
    shards.mkdir()
    for number, start in enumerate((0, 2)):
        with tarfile.open(shards / f"{number:03d}.tar", "w") as tar:
            for path in sorted(images.iterdir())[start : start + 2]:
                tar.add(path, path.name)
                caption = path.with_suffix(".txt")
                info = tarfile.TarInfo(caption.name)
                info.size = len(caption.name)
                tar.addfile(info, io.BytesIO(caption.name.encode()))


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.stem)
def test_every_job_file_runs(path: Path, cli: Run, toy: list[str], tiny_model: Path) -> None:
    """As it stands but for the model, and with what it needs in the working directory."""
    job = tomllib.loads(path.read_text())
    verb = job["verb"]
    if verb == "decode":
        made = cli("encode", "images", *toy, "--size", 32, "-o", job["read"]["store"])
        assert made.code == 0, made.err
    make_tars(Path("images"), Path("shards"))
    small = [*toy[:2], "--baseline", str(tiny_model), "--resolution", "32", "--batch", "4"]
    words = {"encode": toy, "decode": ["--workers", "1"], "roundtrip": toy[:4], "bench": small}
    done = cli(verb, "--config", path, *words[verb], "--json")
    assert done.code == 0, done.err
    document = done.document
    if verb == "bench":
        assert [row["op"] for row in document["rows"]] == ["encode", "decode"]
        return
    assert document.get("encoded", document.get("decoded", document.get("images"))) == 4
    told = job["write"].get("output") or job["write"]["save"]
    assert Path(told).is_dir()
