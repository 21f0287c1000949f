"""Writes WebDataset tars of npy arrays, whose bytes depend on the samples alone.

Source: webdataset 1.0.2, tariterators.py, for how members are joined to samples; POSIX.1-1988 for
the headers of members (ustar).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from latentcli.core.member_names import member_name
from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting
from latentcli.exports.open_formats import (
    ANY,
    class_of,
    described,
    latents_of,
    state_advice,
    stored,
)
from latentcli.exports.serialise import npy_bytes

BLOCK = 512
BYTES = 1 << 27
"""Bytes of float32 latents of a tar, where there are few and large ones."""
FIELDS = {"latent": "npy", "latent_flip": "flip.npy"}
"""What members with latents are called after the key."""


@dataclass(slots=True)
class Tar:
    """A tar that is made in memory."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, name: str, data: bytes) -> int:
        """Adds a member; the offset of its data."""
        header = header_of(name, len(data))
        offset = self.size + len(header)
        padding = b"\0" * (-len(data) % BLOCK)
        self.parts += header, data, padding
        self.size = offset + len(data) + len(padding)
        return offset

    def whole(self) -> bytes:
        """All its bytes, with the two empty blocks that end it."""
        return b"".join((*self.parts, b"\0" * 2 * BLOCK))


def header_of(name: str, size: int) -> bytes:
    """The header of a member: of no time, no owner, and readable by all."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:
        # A name that is too long stands in a member of its own.
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`shard-<number>.tar`."""
    tar = Tar()
    for sample in samples:
        for name, data in members_of(sample, setting):
            tar.add(member_name(sample.key, name), data)
    return Group([File(f"shard-{number:06d}.tar", tar.whole())])


def members_of(sample: ExportSample, setting: Setting) -> Iterable[tuple[str, bytes]]:
    """(name, data) of the members of a sample: the same ones of each, as readers expect."""
    for what, latent in latents_of(sample, setting).items():
        yield FIELDS[what], npy_bytes(stored(latent, setting))
    yield "txt", sample.caption.encode()
    if setting.labelled:
        yield "cls", str(class_of(sample)).encode()
    yield "json", document(sample, setting)


def document(sample: ExportSample, setting: Setting) -> bytes:
    """All that is known of a sample, as JSON."""
    return json.dumps(described(sample, setting), ensure_ascii=False).encode()


def advice(setting: Setting) -> Sequence[str]:
    """How the files are read."""
    names = "npy, txt, json"
    names += ", flip.npy" if setting.mirrored else ""
    names += ", cls" if setting.labelled else ""
    lines = [
        f'Read it with webdataset.WebDataset(glob.glob("{setting.folder}/*.tar")).decode();'
        f" a sample has {names}.",
        state_advice(setting),
    ]
    if setting.shape is None:
        lines.append("Latents have several sizes: batches need a step that groups them.")
    return lines


FORMAT = ExportFormat(
    name="webdataset",
    summary="WebDataset: tars of samples, a .npy with a latent, .txt, .json and .cls of each",
    variants=ANY,
    write=write,
    group=1000,
    group_bytes=BYTES,
    dtypes=("float16", "float32"),
    advice=advice,
)
