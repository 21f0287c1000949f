"""The decoder of a device, played by nvImageCodec's own decoder of a CPU."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from decodekit import HEIGHT, OTHERS, PLAIN, WIDTH, jpeg, use_cpu_as_device
from harness.picture_files import save, scene
from PIL import Image

from latentcli.core.errors import UsageError
from latentcli.core.types import Row
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference import jpeg_decoder
from latentcli.jobs.inference.accelerator import Cpu
from latentcli.jobs.inference.jpeg_decoder import JpegDecoder, check_decoder, outline
from latentcli.jobs.loader.prepare import RawSample, Recipe, file_tensor, prepare_sample
from latentcli.metrics.psnr import psnr

SPEC = PreprocessSpec((64, 48), 16)
LEAST = 45.0
"""dB between what two decoders give."""


def decoder_of(monkeypatch, backend: str = "CPU_ONLY", spec: PreprocessSpec = SPEC) -> JpegDecoder:
    use_cpu_as_device(monkeypatch, backend)
    return JpegDecoder(Cpu(), DecodePolicy(), spec)


def prepared(files, spec: PreprocessSpec = SPEC, where: str = "gpu"):
    recipe = Recipe(DecodePolicy(), spec, where)
    samples = [RawSample(Row(str(i), f"{i}.jpg", "ok"), data) for i, data in enumerate(files)]
    pairs = [prepare_sample(sample, recipe, {}) for sample in samples]
    return [row for row, _ in pairs], [picture for _, picture in pairs]


def photographs(shared: Path) -> list[bytes]:
    """JPEG files of photographs, with colours of half the size and whole, and progressive."""
    found = [Image.open(path) for path in sorted((shared / "images/kodak").glob("*.png"))]
    with tarfile.open(shared / "images/train-clic.tar") as tar:
        held = [tar.extractfile(member).read() for member in tar.getmembers()]
    found += [Image.open(io.BytesIO(data)).convert("RGB") for data in held]
    forms = ({"subsampling": 2}, {"subsampling": 0}, {"subsampling": 2, "progressive": True})
    return [
        save(image, "JPEG", quality=90, **forms[number % 3]) for number, image in enumerate(found)
    ]


@pytest.mark.shared
def test_photographs_are_decoded_as_by_the_cpu(shared, monkeypatch):
    decoder = decoder_of(monkeypatch)
    files = photographs(shared)
    assert len(files) > 40
    for data, whole in zip(files, decoder.decode([*map(file_tensor, files)]), strict=True):
        expected = np.array(decode_image(data, DecodePolicy()).rgb)
        assert psnr(whole[None], torch.from_numpy(expected).permute(2, 0, 1)[None]).item() > LEAST


def test_pixels_are_those_of_the_cpu_in_a_mixed_batch(monkeypatch):
    files = [*PLAIN.values(), *OTHERS.values()]
    decoder = decoder_of(monkeypatch)
    rows, pictures = prepared(files)
    _, expected = prepared(files, where="cpu")
    same_size = [i for i, row in enumerate(rows) if row.resized_size == rows[0].resized_size]
    assert len(same_size) > len(PLAIN) and {picture.ndim for picture in pictures} == {1, 3}
    pixels = decoder.pixels(rows, pictures)
    assert pixels.shape == (len(files), 3, 48, 64)
    assert (pixels.int() - torch.stack(expected).int()).abs().max() <= 2


def test_a_picture_does_not_depend_on_its_company(monkeypatch):
    decoder = decoder_of(monkeypatch)
    rows, pictures = prepared(PLAIN.values())
    together = decoder.pixels(rows, pictures)
    decode, at_once = decoder.decode, list[int]()
    monkeypatch.setattr(
        decoder, "decode", lambda files: at_once.append(len(files)) or decode(files)
    )
    monkeypatch.setattr(jpeg_decoder, "PIXELS", 2 * WIDTH * HEIGHT)
    assert torch.equal(together, decoder.pixels(rows, pictures))
    assert at_once == [2] * (len(rows) // 2) + [1] * (len(rows) % 2)
    alone = [
        decoder.pixels([row], [picture])[0] for row, picture in zip(rows, pictures, strict=True)
    ]
    assert torch.equal(together, torch.stack(alone))


def test_what_the_device_refuses_is_decoded_here(monkeypatch):
    """The library knows no GIF, and CPUs do."""
    decoder = decoder_of(monkeypatch)
    gif = save(Image.fromarray(scene(WIDTH, HEIGHT)), "GIF")
    files = [jpeg(), gif, jpeg("L")]
    rows, expected = prepared(files, where="cpu")
    sent = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    assert [whole is None for whole in decoder.decode(sent)] == [False, True, False]
    pixels = decoder.pixels(rows, sent)
    assert torch.equal(pixels[1], expected[1])
    assert (pixels.int() - torch.stack(expected).int()).abs().max() <= 2
    assert decoder.decode([torch.zeros(9, dtype=torch.uint8)]) == [None]


def test_a_file_that_the_library_raises_at_costs_no_other(monkeypatch):
    decoder = decoder_of(monkeypatch)
    rows, pictures = prepared([jpeg(), jpeg("L"), jpeg()])
    sound, decoded = decoder.pixels(rows, pictures), decoder._decoded

    def raising(files):
        if any(torch.equal(file, pictures[1]) for file in files):
            raise RuntimeError("an odd file")
        return decoded(files)

    monkeypatch.setattr(decoder, "_decoded", raising)
    assert [whole is None for whole in decoder.decode(pictures)] == [False, True, False]
    assert (decoder.pixels(rows, pictures).int() - sound.int()).abs().max() <= 2


def test_another_picture_than_the_one_expected_is_decoded_here(monkeypatch):
    decoder = decoder_of(monkeypatch)
    rows, pictures = prepared([jpeg()])
    monkeypatch.setattr(decoder, "decode", lambda files: [torch.zeros(3, 9, 9, dtype=torch.uint8)])
    _, expected = prepared([jpeg()], where="cpu")
    assert torch.equal(decoder.pixels(rows, pictures), torch.stack(expected))


def test_memory_that_is_short_for_the_resize_is_the_cpus(monkeypatch):
    decoder = decoder_of(monkeypatch)
    rows, pictures = prepared([jpeg()])
    monkeypatch.setattr(jpeg_decoder, "resize_crop", short_of_memory)
    _, expected = prepared([jpeg()], where="cpu")
    assert torch.equal(decoder.pixels(rows, pictures), torch.stack(expected))


def short_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_outline_has_the_shape_without_the_memory():
    rows, pictures = prepared([jpeg()])
    drawn = outline(rows[0], pictures[0])
    assert drawn.shape == (3, 48, 64) and drawn.nbytes == 3 * 48 * 64 and drawn.is_meta
    rows, pictures = prepared([OTHERS["png"]])
    assert outline(rows[0], pictures[0]) is pictures[0]


def test_a_cpu_has_no_such_decoder():
    with pytest.raises(UsageError, match="model runs on cpu, and only CUDA devices decode JPEG"):
        check_decoder(Cpu())


def test_a_device_for_which_the_package_has_no_decoder(monkeypatch):
    with pytest.raises(UsageError, match=r"found no decoder of JPEG files for cpu \(.*Code: 7\)"):
        decoder_of(monkeypatch, "HW_GPU_ONLY")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(Cpu, "jpeg_backends", ("CPU_ONLY",))
    monkeypatch.setattr(jpeg_decoder, "MODULE", "nvidia.no_such_module")
    with pytest.raises(UsageError, match=r"not installed\. pip install 'latentcli\[gpu-jpeg\]'"):
        check_decoder(Cpu())


def test_the_library_says_nothing(monkeypatch):
    """It would: of libraries that it lacks when it is loaded, and of files that it refuses."""
    use_cpu_as_device(monkeypatch)
    code = (
        "import torch; from latentcli.jobs.inference.accelerator import Cpu;"
        "from latentcli.jobs.inference.jpeg_decoder import JpegDecoder;"
        "from latentcli.images.codec import DecodePolicy;"
        "from latentcli.images.preprocess import PreprocessSpec;"
        "Cpu.jpeg_backends = ('CPU_ONLY',);"
        "decoder = JpegDecoder(Cpu(), DecodePolicy(), PreprocessSpec(None, 1));"
        "print(decoder.decode([torch.zeros(9, dtype=torch.uint8)]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("[None]\n", "")
