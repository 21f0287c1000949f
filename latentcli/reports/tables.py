"""Builds rich tables from the --json documents; nothing is measured or looked up here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from latentcli.core.byte_size import byte_words
from latentcli.core.reasons import with_example

Values = Mapping[str, Any]

UNLIMITED = 100_000
"""Columns to measure a table in that nothing should fold."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its header, how a row's cell reads, and whether it is a figure."""

    header: str
    cell: Callable[[Values], str]
    figure: bool = True


def make_table(
    columns: Sequence[Column], rows: Iterable[Values], title: str | None = None
) -> Table:
    """A table that folds long words rather than cutting them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(
            column.header,
            justify="right" if column.figure else "left",
            no_wrap=column.figure,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(column.cell(row)) for column in columns))
    return table


@dataclass(frozen=True, slots=True)
class FittingTable:
    """Rows in the first choice of columns that the terminal shows without cutting a figure."""

    choices: Sequence[Sequence[Column]]
    rows: Sequence[Values]
    notes: Sequence[str] = ()
    """What stands below the table, by choice."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update_width(UNLIMITED)
        tables = [make_table(columns, self.rows) for columns in self.choices]
        widths = [console.measure(table, options=wide).maximum for table in tables]
        fits = (i for i, width in enumerate(widths) if width <= options.max_width)
        place = next(fits, len(tables) - 1)
        yield tables[place]
        if self.notes and self.notes[place]:
            yield Text(self.notes[place])


def parameters(number: int) -> str:
    """88.8M, or 940K below a million."""
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.0f}K"


def figure(value: float | None, digits: int = 2) -> str:
    """A figure with its digits; inf where it is None, which is how documents write infinity."""
    return "inf" if value is None else f"{value:.{digits}f}"


def optional(value: float | None, form: str) -> str:
    """A figure in a format, or nothing where there is none."""
    return "" if value is None else format(value, form)


def abilities(row: Values) -> str:
    """encode, decode or both."""
    return " ".join(verb for verb in ("encode", "decode") if row[f"can_{verb}"])


def short_licence(text: str) -> str:
    """The licence itself, without what a preset adds after a colon, a semicolon or a bracket."""
    return re.split(r"[:;(]", text)[0].strip()


MODEL_COLUMNS = (
    Column("model", lambda r: r["name"], figure=False),
    Column("params", lambda r: parameters(r["parameters"])),
    Column("latents", lambda r: f"f{r['downscale']}c{r['latent_channels']}", figure=False),
    Column("multiples of", lambda r: str(r["size_divisor"])),
    Column("latent space", lambda r: r["latent_space"], figure=False),
    Column("can", abilities, figure=False),
    Column("weights", lambda r: r["weights"], figure=False),
    Column("licence", lambda r: short_licence(r.get("licence", "")), figure=False),
)


SPARE = ("licence", "latent space")
"""What a narrow terminal leaves out of the list, in this order; `models show` tells it too."""


def models_tables(rows: Sequence[Values]) -> Iterator[RenderableType]:
    """The presets, and below them where to find what was left out."""
    left_out = [SPARE[:number] for number in range(len(SPARE) + 1)]
    extras = {row["extra"] for row in rows if row.get("extra")}
    yield FittingTable(
        [[c for c in MODEL_COLUMNS if c.header not in headers] for headers in left_out],
        rows,
        ["", *(f"For the {' and '.join(h)}: latentcli models show NAME" for h in left_out[1:])],
    )
    for extra in sorted(extras):
        names = ", ".join(row["name"] for row in rows if row.get("extra") == extra)
        yield Text(f"These need pip install 'latentcli[{extra}]': {names}")


def facts_table(facts: Mapping[str, str | None]) -> Table:
    """Name and value, one fact a line; facts without a value are left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value is not None:
            table.add_row(Text(name), Text(value))
    return table


def store_tables(document: Values) -> Iterator[RenderableType]:
    """A store's description, and the commonest reasons of failure."""
    if "format" in document:
        yield facts_table(foreign_facts(document))
        return
    yield facts_table(store_facts(document))
    if document.get("failures"):
        yield Text("\nfailed inputs, by reason")
        columns = (
            Column("inputs", lambda r: f"{r['count']:,}"),
            Column("reason", lambda r: r["reason"], figure=False),
        )
        examples = document.get("failure_examples", {})
        rows = (
            {"reason": with_example(text, examples), "count": n}
            for text, n in document["failures"].items()
        )
        yield make_table(columns, rows)


def store_facts(document: Values) -> dict[str, str | None]:
    """What a person wants to know of a store; a single shard tells less."""
    metadata = document.get("metadata", {})
    model, latent, totals = (document.get(name) for name in ("model", "latent", "totals"))
    name = model["name"] if model else metadata.get("model")
    sha256 = (model["weights_sha256"] if model else metadata.get("weights_sha256")) or "unknown"
    return {
        "store": document["store"],
        "status": status_text(document),
        "made by": document.get("tool"),
        "model": name,
        "weights": f"sha256 {sha256}",
        "latent space": document.get("latent_space") or metadata.get("latent_space"),
        "latents": f"f{latent['downscale']}c{latent['channels']}" if latent else None,
        "stored in": dtype_text(document.get("store_dtype")),
        "incomplete": document.get("incomplete"),
        "encoded": f"{document['encoded']:,}",
        "captions": captions_text(document),
        "failed": f"{document['failed']:,}",
        "left out by filters": filters_text(document),
        "sources": sources_text(document["sources"]) if document.get("sources") else None,
        "shards": f"{totals['shards']:,} ({byte_words(totals['bytes'])})" if totals else None,
        "latent sizes": sizes_text(document.get("latent_sizes", {})),
        "preprocessing": preprocessing_text(document.get("preprocessing")),
        "channels": channels_text(document.get("channels")),
        "self-check": self_check_text(document.get("self_check")),
    }


def status_text(document: Values) -> str | None:
    """The manifest's status, and what to do where the job has ended early."""
    if document.get("status") == "running" and not document["writer"]:
        return "stopped: nobody is writing to it; the same encode command goes on"
    return document.get("status")


def captions_text(document: Values) -> str | None:
    """How many of the latents have a caption, where any has."""
    number = document.get("captions")
    return f"{number:,} of {document['encoded']:,}" if number else None


def dtype_text(dtype: str | None) -> str | None:
    """What latents are stored in, where it is not the usual bf16."""
    scaled = "with a scale per channel, read as float32"
    return {"fp16": "fp16", "fp8": f"fp8, {scaled}", "int8": f"int8, {scaled}"}.get(dtype or "")


def foreign_facts(document: Values) -> dict[str, str | None]:
    """What a person wants to know of another tool's latents."""
    dtypes = ", ".join(f"{name} ({number:,})" for name, number in document["dtypes"].items())
    bad = document["not_finite"]["count"]
    space = document["latent_space"] or f"not named; {document['state']}"
    return {
        "latents of": document["format"],
        "place": document["store"],
        "latent space": space,
        "latents": f"{document['encoded']:,} in {document['files']:,}"
        f" file{'' if document['files'] == 1 else 's'}",
        "cannot be read": f"{document['failed']:,}" if document["failed"] else None,
        "bytes": f"{document['bytes']:,}",
        "dtypes": dtypes or None,
        "latent sizes": sizes_text(document["latent_sizes"]),
        "channels": channels_text(document["channels"]),
        "values": f"not finite in {bad:,} latents" if bad else "all finite",
    }


def sizes_text(sizes: Values) -> str:
    """The commonest sizes of latents."""
    shown = ", ".join(f"{size} ({number:,})" for size, number in list(sizes.items())[:8])
    return shown + (f" and {len(sizes) - 8} more" if len(sizes) > 8 else "")


def buckets_text(buckets: Values) -> str:
    """The buckets of a store or a comparison, in a few words."""
    count = len(buckets["table"])
    what = f"{count} buckets" if count else f"buckets for {buckets['area']:,} pixels"
    return f"{what} ({buckets['rule']} rule)"


def preprocessing_text(fields: Values | None) -> str | None:
    """How pictures became equal-sized."""
    if not fields:
        return None
    if fields.get("buckets"):
        return f"resized ({fields['filter']}) and cropped to {buckets_text(fields['buckets'])}"
    if not fields.get("size"):
        return f"own size, cropped to multiples of {fields['divisor']}"
    return f"resized ({fields['filter']}) and cropped to {fields['size'][0]}x{fields['size'][1]}"


def channels_text(channels: Values | None) -> str | None:
    """Range over the channels of the stored latents' mean and std."""
    if not channels or not channels.get("mean") or not channels.get("std"):
        return None
    spans = (f"{k} {min(channels[k]):.3f} to {max(channels[k]):.3f}" for k in ("mean", "std"))
    return ", ".join(spans)


def self_check_text(check: Values | None) -> str:
    """How the first pictures came back; of a model without a decoder, how large latents are."""
    if not check:
        return "not run"
    number = len(check.get("keys") or ())
    what = f"the first {number} pictures" if number > 1 else "the first picture"
    if not check.get("psnr"):
        return f"the latents of {what} are finite, with RMS {optional(check['latent_rms'], '.4g')}"
    if check["psnr_median"] is None:
        return f"{what} came back identical"
    floor = optional(check.get("psnr_floor"), "g")
    least = f" (the floor is {floor} dB)" if floor else ""
    return f"{what} came back at {check['psnr_median']:.1f} dB{least}"


def verify_tables(document: Values) -> Iterator[RenderableType]:
    """The verdict, and every problem."""
    yield facts_table(
        {
            "store": document["store"],
            "shards": f"{document['shards']:,}",
            "inputs": f"{document['inputs']:,}",
            "left out by filters": filters_text(document),
            "encoded again": reencoded_text(document.get("reencoded")),
            "sources": sources_text(document.get("sources")),
            "problems": "none" if document["ok"] else f"{len(document['problems']):,}",
        }
    )
    columns = (
        Column("unit", lambda r: optional(r["unit"], "d")),
        Column("problem", lambda r: r["problem"], figure=False),
    )
    if document["problems"]:
        yield make_table(columns, document["problems"])


def filters_text(document: Values) -> str | None:
    """How many inputs the filters left out and, where it is known, why."""
    if not document.get("filtered"):
        return None
    reasons = document.get("filter_reasons") or {}
    why = "; ".join(f"{number:,} as {text}" for text, number in reasons.items())
    return f"{document['filtered']:,}" + (f" ({why})" if why else "")


def sources_text(sources: Values | None) -> str:
    """Which inputs of a store are not what they were."""
    if not sources:
        return "not checked"
    parts = [f"{root} is not there" for root in sources["missing_roots"]]
    for kind in ("gone", "changed"):
        if count := sources[kind]:
            more = " ..." if count > len(sources[f"{kind}_examples"]) else ""
            parts.append(f"{count:,} {kind}: {', '.join(sources[f'{kind}_examples'])}{more}")
    if unknown := sources.get("unknown"):
        parts.append(f"{unknown:,} with a place that the store does not say")
    return "; ".join(parts) or "all there" + (" and unchanged" * (sources["changed"] == 0))


def reencoded_text(again: Values | None) -> str:
    """How close the inputs came that were encoded again."""
    if not again:
        return "none"
    return (
        f"{again['samples']}, largest RMS difference {again['max_relative_rms']:.2%}"
        f" ({again['tolerance']:.0%} allowed)"
    )
