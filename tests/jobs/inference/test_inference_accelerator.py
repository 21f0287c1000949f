"""Devices that are picked, what depends on their kind, and a third kind that a job runs on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from encodekit import LINEAR, pictures
from harness.fake_gpu import fake_gpu

import latentcli
from latentcli.core.errors import UsageError
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.encode.plan import with_model_defaults
from latentcli.jobs.inference.accelerator import (
    ACCELERATORS,
    Cpu,
    Cuda,
    devices_to_share,
    kind_on_cluster,
    own_device,
    pick_device,
)
from latentcli.jobs.inference.engine import load_engine
from latentcli.jobs.inference.out_of_memory import empty_cache
from latentcli.jobs.store.latent_store import open_store

PACKAGE = Path(latentcli.__file__).parent
SEAM = PACKAGE / "jobs/inference/accelerator.py"
SWITCHES = PACKAGE / "models/exact_products.py"
"""Where torch names its settings of a process so, whatever the device is."""
JPEGS = PACKAGE / "jobs/inference/jpeg_decoder.py"
"""What speaks to a library of one kind of GPU, in its words."""
OTHER_NAMES = PACKAGE / "cli/other_names.py"
"""What other tools call their options."""
KERNELS = PACKAGE / "models/kernels"
"""What is written for one kind of GPU."""
TEXTS = (
    *("cpu, cuda or cuda:N", '("auto", "cpu", "cuda")', '("CUDA", "cuDNN")', '"CUDA switches"'),
    "LATENTCLI_REQUIRE_CUDA",
)
"""What a user reads of CUDA elsewhere: the help of --device and what a shell completes it with, the
table of `bench`, a variable."""


class Toy(Cpu):
    """A kind of GPU that computes on the host, and notes what is asked of it."""

    name = "toy"
    visible = "TOYS"
    gpu = True
    batch_size = 2
    asked: list[str]

    @classmethod
    def available(cls):
        return True

    @classmethod
    def count(cls):
        return 3

    def describe(self):
        return f"Toy number {self.index}"

    def prepare(self):
        self.asked.append("prepare")

    def to_device(self, pixels):
        self.asked.append(f"copy {len(pixels)}")
        return super().to_device(pixels)

    def mark(self):
        self.asked.append("mark")
        return super().mark()


@pytest.fixture
def toy(monkeypatch):
    """The kind, as the third row of the table."""
    monkeypatch.setattr(Toy, "asked", [], raising=False)
    monkeypatch.setitem(ACCELERATORS, "toy", Toy)
    return Toy


def test_a_third_kind_is_one_class_and_one_row(toy, tmp_path):
    folder = pictures(tmp_path / "in", ((64, 48),) * 5)
    told = {}
    for device in ("cpu", "toy:1"):
        job = EncodeJob(
            sources=(str(folder),),
            output=str(tmp_path / device[:3]),
            model=LINEAR,
            device=device,
            workers=0,
        )
        told[device] = run_encode(job)
    document = told["toy:1"]
    assert (document["device"], document["batch_size"]) == ("Toy number 1", 2)
    assert (document["encoded"], document["failed"]) == (5, 0)
    assert toy.asked[0] == "prepare"
    assert [a for a in toy.asked if a.startswith("copy")][-3:] == ["copy 2", "copy 2", "copy 1"]
    assert toy.asked.count("mark") == 6
    cpu, there = open_store(tmp_path / "cpu"), open_store(tmp_path / "toy")
    assert list(cpu) == list(there)
    for key in cpu:
        torch.testing.assert_close(there[key], cpu[key])


def test_a_third_kind_is_one_of_several(toy):
    if not torch.cuda.is_available():
        assert [own_device("auto", n, 5) for n in range(5)] == [f"toy:{n % 3}" for n in range(5)]
        assert devices_to_share("auto") == (3, "TOYS")
    assert own_device("toy", 1, 2) == "toy:1"
    assert devices_to_share("toy") == (3, "TOYS")
    assert kind_on_cluster("toy:1", 0) is toy
    with pytest.raises(UsageError, match="allowed are auto, cpu, cuda, cuda:N, toy and toy:N"):
        pick_device("tpu")
    with pytest.raises(UsageError, match="there are 3 TOY devices"):
        pick_device("toy:3")


def test_only_the_seam_names_a_kind_of_gpu():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path in (SEAM, SWITCHES, JPEGS, OTHER_NAMES) or path.parent == KERNELS:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            named = re.search("cuda|cudnn", line, re.IGNORECASE)
            if named and not any(text in line for text in TEXTS):
                found.append(f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}")
    assert not found, "Ask inference/accelerator.py instead:\n" + "\n".join(found)


@pytest.mark.parametrize("name", ["cuda", "xpu"])
def test_torch_answers_what_a_gpu_is_asked(name):
    """As far as a machine without one can tell: each function is there, also of another make."""
    asked = set(
        re.findall(r"_torch\.(\w+)|get_device_module\(cls\.name\)\.(\w+)", SEAM.read_text())
    )
    names = {one or other for one, other in asked}
    assert {"Event", "device_count", "max_memory_allocated", "set_device"} <= names
    assert not [each for each in names if not hasattr(torch.get_device_module(name), each)]


def test_devices():
    assert pick_device("cpu") == Cpu()
    assert pick_device("auto").name == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("tpu", "mps", "cuda:x", "cuda:", "cpu:-1", ""):
        with pytest.raises(UsageError, match="allowed are auto, cpu, cuda and cuda:N"):
            pick_device(wrong)
    with pytest.raises(UsageError, match="CUDA device"):
        pick_device("cuda:99")


def test_dtypes(model):
    assert load_engine(model, device="cpu").dtype == Cpu.auto_dtype()
    for dtype in ("fp32", "bf16"):
        assert load_engine(model, device="cpu", dtype=dtype).dtype == dtype


def test_bf16_only_where_the_device_knows_it(monkeypatch, model):
    with fake_gpu(monkeypatch) as gpu:
        for capability, dtype in {(9, 0): "bf16", (8, 0): "bf16", (7, 5): "fp32"}.items():
            gpu.capability = capability
            engine = load_engine(model, device="cuda:0")
            assert engine.dtype == dtype
            assert engine.model.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
        with pytest.raises(
            UsageError, match="Fake GPU does not support bfloat16; use --dtype fp32"
        ):
            load_engine(model, device="cuda:0", dtype="bf16")
        engine.model.predicts_class = True
        job = EncodeJob(sources=("x",), class_token=True)
        with pytest.raises(UsageError, match="--class-token is computed in bfloat16, which Fake"):
            with_model_defaults(job, engine)
        gpu.capability = (8, 9)
        assert with_model_defaults(job, engine).class_token


def test_what_a_cpu_says_of_itself():
    cpu = Cpu()
    assert (cpu.device, cpu.describe()) == (torch.device("cpu"), "cpu")
    assert set(cpu.facts().values()) == {None} and cpu.clocks() is None
    added = cpu.watch_memory()
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert cpu.to_device(pixels) is pixels and added() == 0


def test_a_gpu_without_a_number_can_be_prepared():
    cuda = Cuda()
    assert (cuda.device, Cuda(1).device) == (torch.device("cuda"), torch.device("cuda:1"))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    cuda.prepare()
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    empty_cache()


def test_a_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [own_device("auto", n, 4) for n in range(4)] == ["cuda:0", "cuda:1"] * 2
    assert own_device("cuda", 1, 16) == "cuda:1"
    assert own_device("cpu", 1, 2) == "cpu"
    assert own_device("auto", 0, 1) == "auto"
    assert own_device("cuda:1", 0, 1) == "cuda:1"
    with pytest.raises(UsageError, match=r"--device is cuda:1, and 2 processes .* cuda or cpu"):
        own_device("cuda:1", 0, 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert own_device("auto", 1, 2) == "auto"


def test_gpus_that_processes_share(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    for choice in ("auto", "cuda"):
        assert devices_to_share(choice) == (4, "CUDA_VISIBLE_DEVICES")
    assert devices_to_share("cpu") == (0, None)
    with pytest.raises(UsageError, match=r"--device cuda:1 is one device; .* auto, cuda or cpu"):
        devices_to_share("cuda:1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert devices_to_share("auto") == (0, None)


def test_what_a_cluster_runs_on():
    assert [kind_on_cluster("auto", gpus) for gpus in (0, 8)] == [Cpu, Cuda]
    assert [kind_on_cluster(choice, 8) for choice in ("cpu", "cuda:3")] == [Cpu, Cuda]
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        kind_on_cluster("tpu", 8)
