"""What only a GPU shows: bfloat16 on CUDA against float32 on the CPU, and a job end to end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentcli.core.types import InputRow
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.job import run_bench
from latentcli.jobs.config import EncodeJob, RoundtripJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.inference.accelerator import DeviceTimer, pick_device
from latentcli.jobs.inference.batch_size import default_batch_size
from latentcli.jobs.inference.copy_back import CopyBack
from latentcli.jobs.inference.encode_batch import encode_batch, encode_on_device
from latentcli.jobs.inference.engine import decode_batch, load_engine, with_code
from latentcli.jobs.inference.jpeg_decoder import JpegDecoder
from latentcli.jobs.inference.recording import SMALL, can_record
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.loader.prepare import Recipe, prepare
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.jobs.store.latent_store import open_store
from latentcli.latents.pack import pack_stored
from latentcli.metrics.measures import MEASURES
from latentcli.metrics.psnr import psnr
from latentcli.models.kernels import ops

pytestmark = pytest.mark.cuda
PSNR_OF_DECODERS = 45.0
"""dB between what two decoders give of a JPEG file, at the least."""
PSNR_OF_BF16 = 35.0
"""dB between pictures decoded in bfloat16 on the GPU and in float32 on the CPU, at the least."""


def test_bf16_on_cuda_decodes_the_same_picture(cuda: str, photographs: Path) -> None:
    pixels = torch.stack([torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) // 4 + 96] * 2)
    keys = ["a", "b"]
    pictures = []
    for device, dtype in (("cpu", "fp32"), (cuda, "bf16")):
        engine = load_engine("fcdm_nano", device=device, dtype=dtype)
        latent = encode_batch(engine, pixels, keys, "whitened")["latent"]
        pictures.append(decode_batch(engine, latent, keys, DecodeSettings()))
    assert psnr(*pictures).min() > PSNR_OF_BF16


def test_encode_on_cuda(cuda: str, photographs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    job = EncodeJob(sources=(str(photographs),), output=str(store), device=cuda, workers=0)
    document = run_encode(job)
    assert document["dtype"] == "bf16"
    assert document["failed"] == 0
    on_cpu = run_encode(
        EncodeJob(
            sources=(str(photographs),), output=str(tmp_path / "cpu"), device="cpu", workers=0
        )
    )
    assert on_cpu["encoded"] == document["encoded"]
    cpu, gpu = open_store(tmp_path / "cpu"), open_store(store)
    for key in cpu:
        difference = (cpu[key].float() - gpu[key].float()).square().mean().sqrt()
        assert difference < 0.05 * cpu[key].float().square().mean().sqrt()


def test_what_is_packed_behind_the_device_is_what_was_encoded(cuda: str) -> None:
    """Batches are queued on the GPU, and another thread copies them back, as the job does it."""
    engine = load_engine("fcdm_nano", device=cuda, dtype="bf16")
    chance = torch.Generator().manual_seed(0)
    batches = [
        torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8, generator=chance)
        for _ in range(12)
    ]
    keys = [str(i) for i in range(8)]
    expected = [encode_batch(engine, pixels, keys, "whitened", flip=True) for pixels in batches]
    copies = CopyBack(engine.accelerator)
    with ThreadPoolExecutor(1) as lane:
        waiting = []
        for pixels in batches:
            with DeviceTimer(engine.accelerator) as timer:
                parts = encode_on_device(
                    engine, pixels.clone(), keys, "whitened", flip=True, store_dtype="bf16"
                )
            there = copies.begin(parts)
            waiting.append((lane.submit(lambda there: pack_stored(keys, there()), there), timer))
        packed = [future.result() for future, _ in waiting]
    for got, parts in zip(packed, expected, strict=True):
        for part, values in parts.items():
            stored = torch.stack([got.tensors[f"{key}/{part}"] for key in keys])
            assert torch.equal(stored, values.bfloat16())
    assert all(0 < timer.seconds() < 60 for _, timer in waiting)


def test_the_batch_size_of_a_gpu_works(cuda: str) -> None:
    engine = load_engine("fcdm_nano", device=cuda, dtype="bf16")
    size = default_batch_size(type(engine.accelerator), PreprocessSpec((256, 256), 16))
    assert size == 128
    pixels = torch.zeros(size, 3, 256, 256, dtype=torch.uint8)
    latent = encode_batch(engine, pixels, [str(i) for i in range(size)], "whitened")["latent"]
    assert latent.shape[0] == size and latent.isfinite().all()


def test_too_little_memory_is_survived(cuda: str) -> None:
    """The process may take no more than a quarter of what the whole batch needs."""
    engine = load_engine("fcdm_nano", device=cuda, dtype="bf16")
    count = 64
    pixels = torch.randint(0, 256, (count, 3, 512, 512), dtype=torch.uint8)
    keys = [str(i) for i in range(count)]
    encode = partial(encode_on_device, engine, state="whitened")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    whole = encode(pixels, keys)["latent"].cpu()
    need = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(engine.device).total_memory
    notes: list[str] = []
    split_on_oom = SplitOnOom(notes.append)
    torch.cuda.set_per_process_memory_fraction((before + need / 4) / total)
    try:
        halved = split_on_oom.encode(encode, pixels, keys)["latent"].cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert notes and 1 <= split_on_oom.sizes[3, 512, 512] < count
    difference = (halved - whole).square().mean().sqrt()
    assert difference < 0.05 * whole.square().mean().sqrt()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_job_gives_what_its_batches_give(
    cuda: str, photographs: Path, tmp_path: Path, workers: int
) -> None:
    job = EncodeJob(
        sources=(str(photographs),),
        output=str(tmp_path / "store"),
        device=cuda,
        size="128",
        flip="both",
        workers=workers,
    )
    document = run_encode(job)
    assert document["failed"] == 0 and document["batch_size"] >= 1
    assert document["stages"]["encode"]["seconds"] > 0
    store, engine = open_store(tmp_path / "store"), load_engine("fcdm_nano", device=cuda)
    recipe = Recipe(DecodePolicy(), PreprocessSpec((128, 128), engine.model.spec.size_divisor))
    rows = [InputRow(row.key, row.source, 0) for row in store.rows()]
    pixels = [prepare(row, recipe, {})[1] for row in rows]
    keys = [row.key for row in rows]
    size = document["batch_size"]
    for start in range(0, len(keys), size):
        batch = torch.stack([p for p in pixels[start : start + size] if p is not None])
        names = keys[start : start + size]
        for part, values in encode_batch(engine, batch, names, "whitened", flip=True).items():
            for key, value in zip(names, values, strict=True):
                assert torch.equal(store.parts(key)[part], value.bfloat16())


def test_jpeg_files_are_decoded_as_by_the_cpu(cuda: str, jpegs: Path) -> None:
    """Colours of half the size, whole and none, progressive: whole pictures, and resized ones."""
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")
    accelerator = pick_device(cuda)
    rows = [InputRow(path.name, str(path), 0) for path in sorted(jpegs.glob("*.jpg"))]
    for spec in (PreprocessSpec(None, 1), PreprocessSpec((128, 128), 16)):
        decoder = JpegDecoder(accelerator, DecodePolicy(), spec)
        for row in rows:
            _, expected = prepare(row, Recipe(DecodePolicy(), spec), {})
            placed, file = prepare(row, Recipe(DecodePolicy(), spec, "gpu"), {})
            assert expected is not None and file is not None and file.ndim == 1
            assert decoder.decode([file])[0] is not None, row.key
            pixels = decoder.pixels([placed], [file])
            assert pixels.is_cuda
            assert psnr(pixels.cpu(), expected[None]).item() > PSNR_OF_DECODERS, row.key


@pytest.mark.parametrize("workers", [0, 2])
def test_a_job_whose_files_the_gpu_decodes(
    cuda: str, jpegs: Path, tmp_path: Path, workers: int
) -> None:
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")
    (jpegs / "cut.jpg").write_bytes((jpegs / "0-420.jpg").read_bytes()[:-500])
    rows = {}
    for where in ("cpu", "gpu"):
        store = str(tmp_path / where)
        job = EncodeJob(
            sources=(str(jpegs),),
            output=store,
            device=cuda,
            size="128",
            decode_on=where,
            workers=workers,
            flip="both",
        )
        assert run_encode(job)["failed"] == 1
        rows[where] = [*open_store(store).rows()]
    assert rows["cpu"] == rows["gpu"]
    cpu, gpu = open_store(tmp_path / "cpu"), open_store(tmp_path / "gpu")
    for key in cpu:
        difference = (cpu[key].float() - gpu[key].float()).square().mean().sqrt()
        assert difference < 0.08 * cpu[key].float().square().mean().sqrt()


@pytest.fixture
def jpegs(photographs: Path, tmp_path: Path) -> Path:
    """The photographs as JPEG files of all the kinds that a device decodes."""
    folder = tmp_path / "jpegs"
    folder.mkdir()
    forms = {"444": {"subsampling": 0}, "420": {"subsampling": 2}, "progressive": {}, "grey": {}}
    for number, path in enumerate(sorted(photographs.glob("*.png"))):
        for name, options in forms.items():
            image = Image.open(path).convert("L" if name == "grey" else "RGB")
            more = {"progressive": name == "progressive", "quality": 92, **options}
            image.save(folder / f"{number}-{name}.jpg", **more)
    return folder


@pytest.mark.parametrize("name", MEASURES)
def test_measures_do_not_depend_on_the_device(name: str, cuda: str) -> None:
    chance = torch.Generator().manual_seed(0)
    shape = (3, 3, 203, 181)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=chance)
    noise = torch.randint(-20, 21, shape, generator=chance)
    others = (images.int() + noise).clamp(0, 255).byte()
    score = MEASURES[name].score
    on_cpu, on_gpu = score(images, others), score(images.to(cuda), others.to(cuda))
    assert on_gpu.is_cuda and on_gpu.dtype == torch.float64
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-9)


def test_a_roundtrip_and_its_page(cuda: str, photographs: Path, tmp_path: Path) -> None:
    """bf16 on the GPU against float32 on the CPU, two models, and the files of a report."""
    told = {}
    for device, dtype in (("cpu", "fp32"), (cuda, "bf16")):
        told[device] = run_roundtrip(
            RoundtripJob(
                sources=(str(photographs),),
                models=("fcdm_nano",),
                baseline="linear16",
                device=device,
                dtype=dtype,
                metrics=tuple(MEASURES),
                report=str(tmp_path / device),
                csv=str(tmp_path / f"{device}.csv"),
            )
        )
    for there, here in zip(told[cuda]["models"], told["cpu"]["models"], strict=True):
        assert there["psnr"]["mean"] == pytest.approx(here["psnr"]["mean"], abs=0.3)
        assert there["ssim"]["mean"] == pytest.approx(here["ssim"]["mean"], abs=0.01)
    files = [sorted(p.name for p in (tmp_path / d).rglob("[!.]*.*")) for d in ("cpu", cuda)]
    assert files[0] == files[1]


def test_bench_tells_times_memory_and_the_machine(cuda: str) -> None:
    told = run_bench(
        BenchJob(
            models=("fcdm_nano",),
            baseline="linear16",
            device=cuda,
            resolution=("256",),
            batch=(8,),
            repeats=5,
        )
    )
    assert told["dtype"] == "bf16" and told["driver"] and told["clocks"]["before"]
    assert all(check["ok"] for check in told["checks"])
    for row in told["rows"]:
        assert row["ms_per_batch"] > 0 and row["peak_memory_mib"] > 0
        assert row["speedup"] is not None and row["memory_reduction"] is not None


@pytest.mark.parametrize("preset", ["fcdm_nano", "full_capacitor", "dinac_ae_d2"])
@pytest.mark.parametrize("count", [1, 5])
def test_kernels_give_what_torch_gives(cuda: str, preset: str, count: int) -> None:
    """Of one picture too, and of batches whose tiles are not full; the same bits every time."""
    weights = {"random_weights": preset != "fcdm_nano"}
    fused = load_engine(preset, device=cuda, dtype="bf16", **weights)
    exact = load_engine(preset, device=cuda, dtype="fp32", plain=True, **weights)
    assert ops.serves(torch.zeros(1, device=cuda, dtype=torch.bfloat16))
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 160, 96), dtype=torch.uint8, generator=chance)
    keys = [str(i) for i in range(count)]
    got, again, want = (
        encode_batch(engine, pixels, keys, "whitened")["latent"] for engine in (fused, fused, exact)
    )
    assert torch.equal(got, again)
    assert (got - want).square().mean().sqrt() < 0.05 * want.square().mean().sqrt()
    pictures = [decode_batch(e, want, keys, DecodeSettings()) for e in (fused, fused, exact)]
    assert torch.equal(pictures[0], pictures[1])
    assert psnr(pictures[0], pictures[2]).min() > PSNR_OF_BF16


@pytest.mark.parametrize("name", ops.OPERATORS)
def test_a_kernel_gives_what_its_reference_gives(cuda: str, name: str) -> None:
    chance = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=chance)
    turns = torch.view_as_real(torch.polar(torch.ones(70, 32), draw(70, 32)))
    gained = 1 + draw(3, 160).abs()
    given = {
        "depthwise_norm": (draw(3, 5, 14, 80), draw(7, 7, 80), draw(80), draw(3, 160)),
        "gelu_product": (draw(3, 70, 80), draw(160, 80) / 9, draw(160), 64),
        "grn_factors": (draw(3, 2, 160).abs(), draw(160)),
        "residual_product": (
            *(draw(3, 70, 160), gained, draw(80, 160) / 13),
            *(draw(80), draw(3, 70, 80), draw(1, 160)),
        ),
        "token_norm": (draw(3, 70, 80),),
        "token_norms": (draw(3, 70, 80), draw(3, 70, 80), draw(80)),
        "turned_heads": (draw(3, 70, 3, 2, 64), draw(2, 64), turns),
    }[name]
    exact = {"grn_factors": (0, 1), "residual_product": (1,), "turned_heads": (1, 2)}.get(name, ())
    ready = [
        (each if i in exact else each.bfloat16()) if isinstance(each, torch.Tensor) else each
        for i, each in enumerate(given)
    ]
    on_gpu = [each.to(cuda) if isinstance(each, torch.Tensor) else each for each in ready]
    run = getattr(ops.operators, name)
    for got, want in zip(listed(run(*on_gpu)), listed(run(*ready)), strict=True):
        assert (got.cpu() - want).abs().max() <= 2**-6 * want.abs().max()


def listed(results: object) -> list[torch.Tensor]:
    """The results of an operator that has one or several."""
    return results if isinstance(results, list) else [results]  # type: ignore[list-item]


def test_a_second_gpu_gives_the_same(cuda: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU alone")
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    parts = []
    for index in range(2):
        engine = load_engine("fcdm_nano", device=f"cuda:{index}", dtype="bf16")
        torch.cuda.set_device(0)  # kernels go to their tensors' device, not to the thread's own
        parts.append(encode_batch(engine, pixels, ["a", "b"], "whitened")["latent"])
    assert (parts[0] - parts[1]).square().mean().sqrt() < 0.02 * parts[0].square().mean().sqrt()


def test_float32_is_not_tf32(cuda: str) -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    cpu, gpu = (
        encode_batch(
            load_engine("fcdm_nano", device=device, dtype="fp32"), pixels, ["a", "b"], "raw"
        )
        for device in ("cpu", cuda)
    )
    difference = (cpu["latent"] - gpu["latent"]).square().mean().sqrt()
    assert difference < 1e-5 * cpu["latent"].square().mean().sqrt()


def test_a_sample_takes_the_noise_of_its_key(cuda: str) -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    cpu, gpu = (
        encode_batch(
            load_engine("full_capacitor", device=device, dtype="fp32", random_weights=True),
            *(pixels, ["a", "b"], "raw", 7),
        )["latent"]
        for device in ("cpu", cuda)
    )
    assert (cpu - gpu).square().mean().sqrt() < 1e-4 * cpu.square().mean().sqrt()


@pytest.mark.parametrize("preset", ["fcdm_nano", "capacitor_decoder", "linear16", "taesd"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_recording_gives_the_bits_of_its_network(
    cuda: str, preset: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other latents and noise than it was made with; it is made once, and each batch is one."""
    weights = {"random_weights": preset not in ("fcdm_nano", "linear16")}
    plain = load_engine(preset, device=cuda, dtype=dtype, **weights)
    assert can_record(plain.accelerator, SMALL)
    coded = with_code(plain, "decode", {(96, 64): 2})
    counts = {"capture_begin": 0, "replay": 0}

    def counted(name: str) -> None:
        own = getattr(torch.cuda.CUDAGraph, name)

        def call(*args: object, **kwargs: object) -> object:
            counts[name] += 1
            return own(*args, **kwargs)

        monkeypatch.setattr(torch.cuda.CUDAGraph, name, call)

    for name in counts:
        counted(name)
    spec, draw = plain.model.spec, torch.Generator().manual_seed(0)
    settings = DecodeSettings(steps=2, pdg=True)
    for number in range(3):
        latents = torch.randn(2, spec.channels, *spec.latent_size(64, 96), generator=draw)
        keys = [f"{number}/{i}" for i in range(2)]
        found = decode_batch(coded, latents, keys, settings)
        assert torch.equal(found, decode_batch(plain, latents, keys, settings))
        assert counts == {"capture_begin": 1, "replay": 2 + number}


@pytest.mark.parametrize("preset", ["fcdm_nano", "taesd"])
def test_compiled_networks_give_the_same_bits_every_time(cuda: str, preset: str) -> None:
    """And the eager network's up to rounding, which is looked at when the code is made."""
    weights = {"random_weights": preset != "fcdm_nano"}
    engine = load_engine(preset, device=cuda, dtype="bf16", **weights)
    count = SMALL // 256**2 + 1
    keys = [str(i) for i in range(count)]
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 256, 256), dtype=torch.uint8, generator=draw)
    found = []
    for _ in range(2):
        torch.compiler.reset()
        coded = with_code(engine, "encode", {(256, 256): count})
        found.append(encode_batch(coded, pixels, keys, engine.model.spec.state)["latent"])
    assert torch.equal(*found)


def test_a_store_is_encoded_compiled(cuda: str, photographs: Path, tmp_path: Path) -> None:
    stores = [tmp_path / name for name in ("one", "two")]
    for store in stores:
        document = run_encode(
            EncodeJob(
                sources=(str(photographs),),
                output=str(store),
                device=cuda,
                size="256",
                batch_size=2,
                compile="on",
                workers=0,
            )
        )
        assert document["compiled"] is True and document["failed"] == 0
    shards = [sorted((store / "shards").glob("*.safetensors")) for store in stores]
    assert [p.read_bytes() for p in shards[0]] == [p.read_bytes() for p in shards[1]]
