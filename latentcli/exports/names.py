"""Makes names of files from the names of samples, as trainers make them from those of pictures."""

from __future__ import annotations

from pathlib import PurePosixPath

from latentcli.exports.format import ExportSample


def sized(sample: ExportSample) -> str:
    """WxH of the picture, with four digits or more each, as kohya's trainers write it."""
    width, height = sample.original_size
    return f"{width:04d}x{height:04d}"


def stem(name: str) -> str:
    """The last part of a sample's name: what its picture is called, without the last suffix."""
    return PurePosixPath(name).name


def folder(name: str) -> str:
    """The part of a name before the last, with a slash at its end; "" where there is none."""
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else f"{parent}/"
