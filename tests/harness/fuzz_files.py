"""Makes damaged and strange picture files, and damaged and hostile tars, from a seed.

The same seed gives the same files.
"""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image

Mutation = Callable[[random.Random, bytes], bytes]

SIZE = (48, 36)
"""Pixels of the pictures that are damaged."""
BLOCK = 512
SAMPLES = 6
"""In a tar, each of a picture, a caption and a JSON file."""

TEXTS = (
    *(b"", b"\n", b"not a picture", b"<html><body>404</body></html>", b'{"error": 403}'),
    *(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", b"%PDF-1.7\n", b"\xff" * 99),
    *(bytes(5000), b"\0\0\0\x20ftypavif" + bytes(20), b"\0\0\0\x0cjP  \r\n\x87\n", b"GIF89a"),
    *(b"P6", b"P6\n# c\n", b"P6 99999999999 1 255 ", b"P5 -3 4 255 " + bytes(12), b"BM"),
    *(b"\x89PNG\r\n\x1a\n", b"RIFF\x04\x00\x00\x00WEBP", b"\xff\xd8\xff\xd9", b"II*\0\x08\0\0\0"),
    b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
)
"""Files that are no pictures, or their first bytes alone."""
NAMES = ("-rf", "ünïcödé 写真", "new\nline", "a" * 200, "%41 %2e%2e", "dots..in.it", "\udcff\udc80")
"""Strange names of files, without a suffix."""


@dataclass(frozen=True, slots=True)
class StrangeTar:
    """One tar, and what must be found in it whatever else is."""

    name: str
    data: bytes
    keys: frozenset[str] = frozenset()
    """Of samples that have to have a row each: their headers are sound."""


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def good_pictures() -> dict[str, bytes]:
    """By file name, one small file or more of each format that is read."""
    rgb = Image.radial_gradient("L").resize(SIZE)
    rgb = Image.merge("RGB", (rgb, rgb.rotate(90), rgb.rotate(180)))
    grey, wide = rgb.convert("L"), rgb.convert("I").convert("I;16")
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(9), rgb.rotate(18)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    icc = profile()
    return {
        "exif.jpg": saved(rgb, "JPEG", exif=exif, icc_profile=icc),
        "progressive.jpeg": saved(rgb, "JPEG", progressive=True),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "grey.jpg": saved(grey, "JPEG"),
        "rgb.png": saved(rgb, "PNG", icc_profile=icc, exif=exif),
        "alpha.png": saved(rgb.convert("RGBA"), "PNG"),
        "palette.png": saved(rgb.quantize(16), "PNG", transparency=bytes([0, 128, 255])),
        "grey16.png": saved(wide, "PNG"),
        "colour16.png": png(SIZE, 16, 2, zlib.compress(bytes((1 + 6 * SIZE[0]) * SIZE[1]))),
        "moving.apng": saved(rgb, "PNG", **frames),
        "lossy.webp": saved(rgb, "WEBP", exif=exif),
        "lossless.webp": saved(rgb.convert("RGBA"), "WEBP", lossless=True),
        "moving.webp": saved(rgb, "WEBP", **frames),
        "plain.avif": saved(rgb, "AVIF", exif=exif),
        "plain.gif": saved(rgb, "GIF"),
        "moving.gif": saved(rgb, "GIF", **frames),
        "plain.bmp": saved(rgb, "BMP"),
        "palette.bmp": saved(rgb.quantize(16), "BMP"),
        "plain.tif": saved(rgb, "TIFF"),
        "lzw.tiff": saved(rgb, "TIFF", compression="tiff_lzw", exif=exif),
        "deflate.tif": saved(rgb.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": saved(rgb, "TIFF", compression="jpeg"),
        "float.tif": saved(grey.convert("F").point(lambda v: v / 255), "TIFF"),
        "grey16.tif": saved(wide, "TIFF"),
        "plain.jp2": saved(rgb, "JPEG2000"),
        "plain.j2k": saved(rgb, "JPEG2000", no_jp2=True),
        "plain.ppm": saved(rgb, "PPM"),
        "plain.pgm": saved(grey, "PPM"),
        "plain.pbm": saved(grey.convert("1"), "PPM"),
        "plain.tga": saved(rgb, "TGA"),
        "rle.tga": saved(rgb.convert("RGBA"), "TGA", compression="tga_rle"),
    }


@cache
def profile() -> bytes:
    """A real colour profile, without the time of its making."""
    from PIL import ImageCms

    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + bytes(12) + made[36:]


def png(
    size: tuple[int, int], bits: int, kind: int, data: bytes, *more: tuple[bytes, bytes]
) -> bytes:
    """A PNG made by hand, whatever it claims; `more` are chunks in front of the data."""
    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def flip(chance: random.Random, data: bytes) -> bytes:
    """Some bits; half of the time near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 40))):
        span = min(chance.choice((64, 400, len(data))), len(data))
        changed[chance.randrange(span)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, data: bytes) -> bytes:
    """The end, or a stretch in the middle, is gone."""
    start = chance.randrange(len(data))
    end = chance.choice((len(data), start + chance.randrange(1, 300)))
    return data[:start] + data[end:]


def insert(chance: random.Random, data: bytes) -> bytes:
    """Random bytes in between."""
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.choice((1, 2, 7, 600))) + data[at:]


def repeat(chance: random.Random, data: bytes) -> bytes:
    """A stretch is there twice, or many times."""
    at = chance.randrange(len(data))
    piece = data[at : at + chance.randrange(1, 400)]
    return data[:at] + piece * chance.choice((2, 3, 200)) + data[at + len(piece) :]


def overwrite(chance: random.Random, data: bytes) -> bytes:
    """A stretch of zeros, ones or noise in place of what was there."""
    at, size = chance.randrange(len(data)), chance.choice((1, 4, 64, 500))
    piece = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))
    return data[:at] + piece + data[at + size :]


def enlarge(chance: random.Random, data: bytes) -> bytes:
    """Every number that may be the picture's width or height becomes another one."""
    order = chance.choice(("big", "little"))
    for side in SIZE:
        new = chance.choice((0, 1, 4000, 32767, 65535, 2**31 - 1, 2**32 - 1))
        for width in (4, 2):
            old = side.to_bytes(width, order)
            data = data.replace(old, min(new, 256**width - 1).to_bytes(width, order), 2)
    return data


MUTATIONS: tuple[Mutation, ...] = (flip, flip, cut, insert, repeat, overwrite, enlarge)


def damaged(chance: random.Random, data: bytes, most: int = 3) -> bytes:
    """With one kind of damage, or several on top of each other."""
    for mutation in chance.choices(MUTATIONS, k=chance.randrange(1, most + 1)):
        data = mutation(chance, data) or b"\0"
    return data


@cache
def zeros(size: int) -> bytes:
    """So many zeros, compressed."""
    return zlib.compress(bytes(size), 9)


def bomb(chance: random.Random) -> bytes:
    """A few kilobytes that would like to be gigabytes."""
    many = zeros(50_000_000)
    side = chance.choice((4000, 20_000, 2**31 - 1))
    grey = (4000, 4000)
    return chance.choice(
        (
            lambda: png((side, side), 8, 2, zlib.compress(b"\0")),
            lambda: png(grey, 8, 0, zeros(4001 * 4000)),
            lambda: png(grey, 16, 6, zeros((1 + 8 * 4000) * 4000)),
            lambda: png(SIZE, 8, 2, many),
            lambda: png(SIZE, 8, 2, b"", (b"zTXt", b"a\0\0" + many)),
            lambda: png(SIZE, 8, 2, b"", (b"iCCP", b"a\0\0" + many)),
            lambda: png(SIZE, 8, 2, b"", *((b"tEXt", b"a\0" + b"b" * 99),) * 20_000),
            lambda: b"GIF89a" + b"\xff\xff\xff\xff\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
            lambda: b"P5 65535 65535 255\n" + bytes(100),
        )
    )()


def marked(chance: random.Random, data: bytes) -> bytes:
    """A sound picture with absurd EXIF data, or an absurd colour profile."""
    size = chance.choice((0, 3, 200, 60_000))
    noise = chance.choice((bytes(size), chance.randbytes(size), profile()[: size or 99]))
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x03" + b"\x01\x12\0\x03\xff\xff\xff\xff" + noise
    loop = b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    exif = b"Exif\0\0" + chance.choice((noise, tiff, loop))
    with Image.open(io.BytesIO(data)) as image:
        form = chance.choice(("JPEG", "PNG", "WEBP", "TIFF"))
        options: dict[str, Any] = {"exif": exif[:60_000]}
        if form == "TIFF" or chance.random() < 0.5:
            options = {"icc_profile": chance.choice((noise, damaged(chance, profile())))}
        return saved(image.convert("RGBA").convert("RGB"), form, **options)


def strange_picture(chance: random.Random, good: Mapping[str, bytes]) -> tuple[str, bytes]:
    """(file name, bytes) of one file."""
    name = chance.choice(sorted(good))
    data, other = good[name], chance.choice(sorted(good.values()))
    kind = chance.random()
    if kind < 0.02:
        data = bomb(chance)
    elif kind < 0.06:
        data = chance.choice(TEXTS)
    elif kind < 0.12:
        data = marked(chance, data)
    elif kind < 0.24:
        head = chance.choice((2, 4, 12, 40, len(other) // 2))
        data = other[:head] + data[chance.choice((0, head)) :]
    elif kind < 0.27:
        data = other + data if kind < 0.255 else good_tar(chance, {name: data})[0]
    elif kind < 0.29:
        pass
    else:
        data = damaged(chance, data)
    if chance.random() < 0.05:
        name = chance.choice(sorted(good))
    return name, data


def strange_pictures(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(path below a folder, bytes) of so many files, all of them different in name."""
    chance, good = random.Random(seed), good_pictures()
    for number in range(count):
        name, data = strange_picture(chance, good)
        odd = chance.choice(NAMES) if chance.random() < 0.03 else "p"
        yield f"{number // 200:03d}/{odd}{number:05d}.{name}", data


def header(
    name: str, size: int | bytes, kind: bytes = b"0", link: str = "", prefix: bytes = b""
) -> bytes:
    """A header block that says what it is told to, with a fitting checksum."""
    number = size if isinstance(size, bytes) else b"%011o" % size
    block = name.encode("utf-8", "surrogateescape")[:100].ljust(100, b"\0") + b"0000644\0" * 3
    block += number.ljust(12, b"\0") + b"0" * 11 + b"\0" + b" " * 8 + kind
    block += link.encode()[:100].ljust(100, b"\0") + b"ustar\x0000" + bytes(80)
    block = (block + prefix.ljust(155, b"\0")).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: str, data: bytes, kind: bytes = b"0", link: str = "") -> bytes:
    """A header and its data."""
    return header(name, len(data), kind, link) + data + bytes(-len(data) % BLOCK)


def hostile_members(chance: random.Random, picture: bytes) -> bytes:
    """Members that want to get out, to be links or devices, or to be larger than any disk."""
    long = "d/" * chance.choice((60, 3000)) + "x.jpg"
    away = chance.choice(("../escaped.jpg", "a/../../escaped.jpg", "/escaped.jpg", "..\\e.jpg"))
    pax = b"path=" + chance.choice((away, "p.jpg")).encode() + b"\n"
    pax = b"%d " % (len(pax) + 3) + pax
    return chance.choice(
        (
            member(away, picture),
            member("link.jpg", b"", b"2", "/etc/passwd") + member("link.jpg", picture),
            member("hard.jpg", b"", b"1", "s0.jpg"),
            member("out", b"", b"2", "..") + member("out/escaped.jpg", picture),
            b"".join(member(f"{kind}.jpg", b"", str(kind).encode()) for kind in (3, 4, 6)),
            member("s0.jpg", picture) + member("s0.jpg", picture[::-1]),
            header("huge.jpg", 10 * 2**30),
            header("huge.jpg", b"\x80" + (2**60).to_bytes(11, "big")),
            header("less.jpg", b"\xff" * 12),
            header("odd.jpg", b"12345678xyz\0"),
            member("h", pax, b"x") + member("p.jpg", picture),
            member("h", pax, b"g") + member("p.jpg", picture),
            header("h", 10 * 2**30, b"x"),
            member("././@LongLink", long.encode() + b"\0", b"L") + member("n.jpg", picture),
            member("bomb.png", png((4000, 4000), 8, 2, zeros(48_004_000))),
            member("bomb.png", png((2**31 - 1, 2**31 - 1), 8, 2, zlib.compress(b"\0"))),
            member("con\0trol\n.jpg", picture) + member("\udcff.jpg", picture),
            member("no_suffix", picture) + member(".hidden.jpg", picture),
        )
    )


def good_tar(
    chance: random.Random, pictures: Mapping[str, bytes]
) -> tuple[bytes, list[tuple[int, int]], frozenset[str]]:
    """A tar of samples, where in it the data of its members are, and the keys of its samples."""
    file, keys = io.BytesIO(), []
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    with tarfile.open(fileobj=file, mode="w", format=chance.choice(forms)) as tar:
        for number in range(SAMPLES):
            name = chance.choice(sorted(pictures))
            key = chance.choice(("s", "deep/er/s", "ü s")) + str(number)
            keys.append(key)
            parts = {name.rpartition(".")[2]: pictures[name], "txt": b"a cat", "json": b'{"a": 1}'}
            for field, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{field}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        spans = [(info.offset_data, info.size) for info in tar]
    return file.getvalue(), spans, frozenset(keys)


def scattered(chance: random.Random, data: bytes) -> bytes:
    """Some bits anywhere."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def shuffled(chance: random.Random, data: bytes) -> bytes:
    """Whole blocks are gone, there twice, or in each other's places."""
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    one, other = chance.randrange(len(blocks)), chance.randrange(len(blocks))
    match chance.randrange(3):
        case 0:
            del blocks[one]
        case 1:
            blocks.insert(one, blocks[other])
        case _:
            blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


TAR_MUTATIONS: tuple[Mutation, ...] = (
    *(shuffled, shuffled, scattered, scattered),
    *(cut, insert, repeat, overwrite),
)


def strange_tar(chance: random.Random, number: int, pictures: Mapping[str, bytes]) -> StrangeTar:
    """One tar: its data or its headers damaged, hostile members in it, or none at all."""
    data, spans, keys = good_tar(chance, pictures)
    name, kind = f"{number // 50:02d}/t{number:04d}.tar", chance.random()
    if kind < 0.2:
        changed = bytearray(data)
        for start, size in chance.sample(spans, 5):
            changed[start + chance.randrange(size)] ^= 1 << chance.randrange(8)
        return StrangeTar(name, bytes(changed), keys)
    if kind < 0.45:
        return StrangeTar(name, hostile_members(chance, min(pictures.values())) + data)
    if kind < 0.55:
        packed = gzip.compress(data, mtime=0)
        return StrangeTar(f"{name}.gz", damaged(chance, packed, 1) if kind > 0.46 else packed)
    if kind < 0.6:
        packed = gzip.compress(data, mtime=0)
        strange = (b"", bytes(10_240), b"text", data[:BLOCK], data[:100], packed)
        return StrangeTar(name, chance.choice(strange))
    for _ in range(chance.randrange(1, 4)):
        data = chance.choice(TAR_MUTATIONS)(chance, data) or data[:100]
    return StrangeTar(name, data)


def strange_tars(count: int, seed: int) -> Iterator[StrangeTar]:
    """So many tars."""
    chance, pictures = random.Random(seed), good_pictures()
    return (strange_tar(chance, number, pictures) for number in range(count))
