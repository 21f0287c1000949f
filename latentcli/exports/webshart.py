"""Writes tars of npy arrays, each with the index by which webshart reads it at random.

webshart joins members by what stands before their last dot, and takes each that is no JSON for a
sample: so a sample has a latent and a document, and no others.

Source: webshart 0.4.6; the index that it makes of a tar is the tests' reference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from latentcli.core.member_names import member_name
from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting
from latentcli.exports.open_formats import ANY, described, state_advice, stored
from latentcli.exports.serialise import npy_bytes
from latentcli.exports.webdataset import BYTES, Tar


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`shard_<number>.tar`, and its index of the same name."""
    tar = Tar()
    files: dict[str, Any] = {}
    for sample in samples:
        files |= add(tar, sample, setting)
    name = f"shard_{number:06d}"
    data = tar.whole()
    index = {
        "path": f"{name}.tar",
        "filesize": len(data),
        "files": files,
        "includes_image_geometry": True,
    }
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode()
    return Group([File(f"{name}.tar", data), File(f"{name}.json", text)])


def add(tar: Tar, sample: ExportSample, setting: Setting) -> dict[str, Any]:
    """Adds the members of a sample to a tar; what the index says of them, by name."""
    latent = npy_bytes(stored(sample.latent, setting))
    about = described(sample, setting)
    text = json.dumps(about, ensure_ascii=False).encode()
    h, w = sample.latent.shape[-2:]
    name, beside = member_name(sample.key, "npy"), member_name(sample.key, "json")
    entry = {"path": name, "offset": tar.add(name, latent), "length": len(latent)}
    document = {"path": beside, "offset": tar.add(beside, text), "length": len(text)}
    # Sizes are those of the picture that the latent is of: buckets are made by them.
    entry |= {"width": w * setting.downscale, "height": h * setting.downscale, "aspect": w / h}
    entry |= {f"json_{key}": value for key, value in document.items()}
    if sample.caption:
        entry["captions"] = sample.caption
    return {name: entry | {"json_metadata": about}, beside: document}


def advice(setting: Setting) -> Sequence[str]:
    """How the files are read."""
    lines = [
        f'Read it with webshart.TarDataLoader(webshart.discover_dataset("{setting.folder}")); the'
        " data of a sample is an .npy file.",
        state_advice(setting),
    ]
    if setting.mirrored:
        lines.append(
            "Latents of mirrored pictures are left out: each would count as a sample of its own."
        )
    return lines


FORMAT = ExportFormat(
    name="webshart",
    summary="webshart: tars of samples, each with an index for reading at random",
    variants=ANY,
    write=write,
    group=1000,
    group_bytes=BYTES,
    dtypes=("float16", "float32"),
    advice=advice,
)
