"""Builds the table of what latents take in each dtype, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from latentcli.reports.tables import Column, FittingTable

Values = Mapping[str, Any]

FORMS = ("B", "KB", "MB", "GB", "TB")
"""Decimal units, as disks and shops count."""


def budget_tables(document: Values) -> Iterator[RenderableType]:
    """Bytes and quality side by side, the pictures' own files below, and what it all is of."""
    rows = list(document["rows"])
    if document["source_bytes"] is not None:
        rows.append(
            {
                "store_dtype": "source files",
                "bytes": document["source_bytes"],
                "million_bytes": document["source_million_bytes"],
            }
        )
    worst = Column("worst", lambda r: decibels(r.get("worst_delta")))
    columns = (
        Column("stored in", lambda r: r["store_dtype"], figure=False),
        Column("a picture", lambda r: size_text(r["bytes"])),
        Column("of bf16", lambda r: f"{r['share']:.0%}" if "share" in r else ""),
        Column("1 M pictures", lambda r: size_text(r["million_bytes"])),
        Column("PSNR dB", psnr_text),
        Column("to bf16", lambda r: decibels(r.get("delta"))),
    )
    yield FittingTable(((*columns, worst), columns), rows)
    yield Text(note(document))


def psnr_text(row: Values) -> str:
    """The mean figure; what else there is to say where there is none."""
    if "psnr" not in row:
        return ""
    if row["unfit"]:
        return f"{row['unfit']} out of range"
    mean = row["psnr"]["mean"]
    return "the same" if mean is None else f"{mean:.3f}"


def decibels(value: float | None) -> str:
    """A difference in dB, nothing where there is none, and zero without a sign."""
    return "" if value is None else f"{round(value, 3) + 0.0:.3f}"


def note(document: Values) -> str:
    """What was measured, and against what."""
    count, model = document["samples"], document["model"]
    pictures = f"{count:,} picture{'' if count == 1 else 's'}"
    if document["against"] == "pictures":
        what = f"{pictures} encoded and decoded with {model}, compared with what was encoded."
    else:
        what = (
            f"The pictures were not found: {pictures} decoded with {model} from the"
            f" {document['stored_in']} latents of the store, compared with what these latents"
            " decode to."
        )
    if document["stored_in"] is None:
        return f"{what} Bytes are those of the sample's sizes."
    return f"{what} Bytes are of all sizes in the store, which is in {document['stored_in']}."


def size_text(number: float) -> str:
    """Bytes in decimal units: 33.1 KB, 1.2 TB."""
    for unit in FORMS[:-1]:
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} {FORMS[-1]}"
