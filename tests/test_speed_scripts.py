"""The scripts that measure speed, run in small as they are on a whole machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


def run(script: str, *words: object) -> tuple[str, dict]:
    """(What it printed, the file that it wrote)."""
    path = Path(str(words[-1]))
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout, json.loads(path.read_text())


def test_a_day_on_a_gpu_is_rehearsed_on_a_cpu(tmp_path):
    shown, found = run("gpu_day.py", *("--device", "cpu", "--small", "--json", tmp_path / "a.json"))
    steps = found["steps"]
    assert all(step["exit_code"] == 0 and not step["timed_out"] for step in steps.values())
    documents = {name: step.get("document") for name, step in steps.items()}
    assert documents["ceilings"]["gflop_per_second"]["fp32"] > 0
    for network in documents["kernels"].values():
        assert network["parts"]["products"] > 0 and network["launches"] > 50
    assert len(documents["depthwise"]["ms"]) == 4
    for ways in documents["compile"].values():
        assert ways["speedup"].keys() == {"eager", "compiled"} and not ways["failed"]
    for op in ("encode", "decode"):
        rows = documents[op]["rows"]
        assert {row["op"] for row in rows} == {op} and all(row["speedup"] for row in rows)
        assert all(0 < row["matrix_share"] < 1.5 for row in rows)
    assert documents["job-64"]["encoded"] == 16 and found["whole_jobs"]["64"]["ratio"] > 0
    assert "of the slowest stage" in shown


def test_a_step_that_hangs_or_fails_loses_no_other(tmp_path):
    """The steps are processes: these two end as a test of ours ends them."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import gpu_day, json, pathlib;"
        "bad = [gpu_day.Step('late', 1, ('-c', 'import time; time.sleep(60)')),"
        " gpu_day.Step('broken', 9, ('-c', 'raise SystemExit(\"no\")')),"
        " gpu_day.Step('good', 9, ('-c', 'print(\"{}\")'))];"
        "gpu_day.steps_of = lambda day: bad;"
        "day = gpu_day.Day('cpu', True, pathlib.Path(sys.argv[2]));"
        "print(gpu_day.run_day(day, pathlib.Path(sys.argv[2]) / 'a.json', ()))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "2"
    steps = json.loads((tmp_path / "a.json").read_text())["steps"]
    assert steps["late"]["timed_out"] and steps["late"]["seconds"] < 30
    assert (steps["broken"]["exit_code"], steps["broken"]["errors"]) == (1, "no\n")
    assert steps["good"]["document"] == {}


def test_a_day_compares_where_files_are_decoded():
    """On a machine with a card and the package; here neither is needed to say what would be run."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import gpu_day;"
        "gpu_day.DECODER = 'json'; gpu_day.find_spec = lambda name: True;"
        "days = [gpu_day.Day(name, True, pathlib.Path('w')) for name in ('cpu', 'cuda')];"
        "print([[s.name for s in gpu_day.steps_of(day) if 'gpu' in s.words] for day in days]);"
        "told = {'stages-64': {'document': {'image_stages_alone': 4, 'model_alone': 2}},"
        " 'job-64': {'document': {'images_per_second': 1}},"
        " 'decoded-64': {'document': {'images_per_second': 3}}};"
        "print(*gpu_day.summary({'steps': {}, 'whole_jobs': gpu_day.whole_jobs(told, [64])}))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "[[], ['decoded-64']]",
        "job to 64: 1 images/s, 0.50 of the slowest stage; decoded on the GPU 3 images/s",
    ]


def test_a_day_knows_own_kernels_and_rows_without_a_baseline():
    """What only a GPU shows: names of kernels, and a network that its memory is too short for."""
    row = {"resolution": 64, "batch": 1, "model": "a", "ms_per_batch": 2.0, "speedup": None}
    row |= {"matrix_share": 0.5, "peak_memory_mib": 1.0, "memory_reduction": None}
    step = {"seconds": 1.0, "timed_out": False, "exit_code": 0}
    step |= {"document": {"rows": [row], "baseline": "b"}}
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import gpu_day;"
        "names = 'depthwise_norm gelu_product residual_product grn_factors token_norms'.split();"
        "print(*(gpu_day.part_of(name + '_kernel') for name in names), sep=', ');"
        "document = {'steps': {'encode': json.loads(sys.argv[2])}, 'whole_jobs': {}};"
        "print(*gpu_day.summary(document), sep='\\n')"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), json.dumps(step)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    parts, *_, shown = ran.stdout.splitlines()
    assert parts == "depthwise, products, products, norms and sums, norms and sums"
    assert shown == "encode 64 batch 1 a: 2.00 ms, 50% of the matrix rate, peak 1 MiB"


def test_the_table_of_a_cpu_is_printed_as_the_page_has_it(tmp_path):
    words = ("--small", "--turns", 2, "--flux-turns", 1, "--json", tmp_path / "a.json")
    shown, found = run("speed_table.py", *words)
    assert found["cpu"] in shown and shown.count("as the job runs it") == 3
    for row in found["rows"]:
        assert row["steps"][0]["of_the_first"] == 1.0
        assert all(step["ms"] > 0 for step in row["steps"])
    assert all(0 < row["matrix_share"] < 1.5 for row in found["rows"][:-1])
    page = (ROOT / "docs" / "internals" / "performance.md").read_text()
    assert page.count("<!-- cpu: written by scripts/speed_table.py --write -->") == 1
    assert page.count("<!-- end of cpu -->") == 1


def test_the_job_and_a_plain_script_agree(tmp_path):
    path = tmp_path / "a.json"
    shown, found = run(
        "against_plain.py", *("--images", 12, "--side", 300, "--turns", 1, "--json", path)
    )
    assert found["images"] == 12 and found["ratio"] > 0
    assert 0 < found["difference"] < 0.05
    assert "plain / latentcli" in shown
