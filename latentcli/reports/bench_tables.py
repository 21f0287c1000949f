"""Builds bench's tables as the model cards print them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from latentcli.reports.tables import (
    Column,
    FittingTable,
    Values,
    facts_table,
    make_table,
    optional,
)

CASE_COLUMNS = (
    Column("resolution", lambda r: str(r["resolution"])),
    Column("batch", lambda r: str(r["batch"])),
    Column("model", lambda r: r["model"], figure=False),
    Column("ms/batch", lambda r: f"{r['ms_per_batch']:,.2f}"),
)
TIMES_COLUMN = Column("p25-p75", lambda r: span(r, "ms_p25", "ms_p75", ",.2f"))
SPREAD_COLUMN = Column(
    "spread", lambda r: f"±{(r['ms_p75'] - r['ms_p25']) / 2 / r['ms_per_batch']:.1%}"
)
"""Half the distance of the quartiles, as a part of the median."""
RATE_COLUMNS = {
    "encode": Column("images/s", lambda r: f"{r['images_per_second']:,.1f}"),
    "decode": Column("ms/image", lambda r: f"{r['ms_per_batch'] / r['batch']:,.2f}"),
}
"""By op, the rate that the published table of that op has."""
MEMORY_COLUMN = Column("peak MiB", lambda r: optional(r["peak_memory_mib"], ",.1f"))
SPEEDUP_COLUMN = Column("speedup", lambda r: times(r["speedup"]))
SPEEDUPS_COLUMN = Column("p25-p75", lambda r: span(r, "speedup_p25", "speedup_p75", ".2f"))
SAVED_COLUMN = Column("memory", lambda r: change(r["memory_reduction"]))
REPEATS_COLUMN = Column("repeats", lambda r: str(r["repeats"]))
SHARE_COLUMNS = (
    Column("GFLOP", lambda r: optional(r["gflop"], ",.2f")),
    Column("GFLOP/s", lambda r: optional(a_second(r, "gflop"), ",.0f")),
    Column("of products", lambda r: optional(r["matrix_share"], ".0%")),
    Column("GB", lambda r: optional(r["gbyte"], ",.3f")),
    Column("GB/s", lambda r: optional(a_second(r, "gbyte"), ",.1f")),
    Column("of copies", lambda r: optional(r["copy_share"], ".0%")),
    Column("operators", lambda r: optional(r["operators"], ",")),
)
SHARE_CHOICES = (
    (*CASE_COLUMNS[:3], *SHARE_COLUMNS),
    (*CASE_COLUMNS[:3], *(c for c in SHARE_COLUMNS if not c.header.endswith("/s"))),
    (*CASE_COLUMNS[:3], *(c for c in SHARE_COLUMNS if c.header.startswith("of "))),
)
LIBRARIES = ("CUDA", "cuDNN")
"""What a document may name beside torch; their keys are in lower case."""


def choices(op: str, versus: bool, cut: bool) -> list[tuple[Column, ...]]:
    """The columns of an op's table, the most telling choice first.

    Where quartiles find no room, `spread` stands for those of the times; then the rate and the
    spread go, which follow from other columns or are in the JSON document.
    """
    rate, repeats = (RATE_COLUMNS[op],), (REPEATS_COLUMN,) if cut else ()
    against = (SPEEDUP_COLUMN, SAVED_COLUMN) if versus else ()
    quartiles = (SPEEDUP_COLUMN, SPEEDUPS_COLUMN, SAVED_COLUMN) if versus else ()
    return [
        (*CASE_COLUMNS, TIMES_COLUMN, *rate, MEMORY_COLUMN, *quartiles, *repeats),
        (*CASE_COLUMNS, SPREAD_COLUMN, *rate, MEMORY_COLUMN, *quartiles, *repeats),
        (*CASE_COLUMNS, SPREAD_COLUMN, *rate, MEMORY_COLUMN, *against, *repeats),
        (*CASE_COLUMNS, SPREAD_COLUMN, MEMORY_COLUMN, *against),
        (*CASE_COLUMNS, MEMORY_COLUMN, *against),
        (*CASE_COLUMNS, *against),
    ]


def times(value: float | None) -> str:
    """9.01x, or 0.071x where two decimals would say little."""
    return "" if value is None else f"{value:.{2 if value >= 0.1 else 3}f}x"


def change(saved: float | None) -> str:
    """-91.9% for a saving of 0.919, +24.4% for one of -0.244: as the published tables write it."""
    if saved is None:
        return ""
    text = f"{-saved:+.1%}"
    return "0.0%" if float(text.rstrip("%")) == 0 else text


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names for tables: of a folder as many of its last parts as tell the models apart."""
    found = list(dict.fromkeys(names))
    parts = [Path(name).parts or (name,) for name in found]
    for kept in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(part[-kept:]) for part in parts]
        if len(set(short)) == len(found):
            return dict(zip(found, short, strict=True))
    return dict(zip(found, found, strict=True))


def a_second(row: Values, name: str) -> float | None:
    """What a call asks of the machine, per second that it takes; None where that is not known."""
    return None if row[name] is None else 1000 * row[name] / row["ms_per_batch"]


def span(row: Values, low: str, high: str, form: str) -> str:
    """Two figures with a dash between, or nothing where there are none."""
    if row.get(low) is None or row.get(high) is None:
        return ""
    return f"{format(row[low], form)}-{format(row[high], form)}"


def bench_tables(document: Values) -> Iterator[RenderableType]:
    """What was measured and how, then a table for each op; against the baseline if there is one."""
    yield facts_table(bench_facts(document))
    names = short_names(row["model"] for row in document["rows"])
    rows = [{**row, "model": names[row["model"]]} for row in document["rows"]]
    versus = any(row["speedup"] is not None for row in rows)
    cut = any(row.get("repeats") not in (None, document.get("repeats")) for row in rows)
    for op in dict.fromkeys(row["op"] for row in rows):
        yield Text(f"\n{heading(document, op)}")
        of_op = [row for row in rows if row["op"] == op]
        yield FittingTable(choices(op, versus, cut), of_op)
        if document.get("ceilings"):
            yield Text(f"\n{op}, share of the machine's speed")
            yield FittingTable(SHARE_CHOICES, of_op)


def heading(document: Values, op: str) -> str:
    """What a table shows: the op, whether its rows are the published ones, against what."""
    table = document.get("preset_table")
    if table:
        op = f"{op}, the rows of the published table"
        if table["batch"] is not None:
            op = f"{op} at batch size {table['batch']} instead of {table['published_batch']}"
    parts = [op, f"{document['device']} {document['dtype']}"]
    if document.get("compiled"):
        parts.append("compiled")
    if document.get("baseline"):
        parts.append(f"against {short_name(document, document['baseline'])}")
    if document.get("random_weights"):
        parts.append("random weights")
    return ", ".join(parts)


def short_name(document: Values, name: str) -> str:
    """What the tables call a model."""
    return short_names(row["model"] for row in document["rows"]).get(name, name)


def bench_facts(document: Values) -> dict[str, str | None]:
    """What the figures depend on; None for what the document does not tell."""
    return {
        "device": document["device"] if document["device"] != "cpu" else None,
        "driver": document.get("driver"),
        "clocks": clocks_text(document.get("clocks") or {}),
        "processor": processor_text(document),
        "software": software_text(document),
        "CUDA switches": flags_text(document.get("flags")),
        "weights": weights_text(document),
        "timing": timing_text(document),
        "the machine": ceilings_text(document.get("ceilings")),
        "checked": checks_text(document.get("checks")),
        "peak memory": document.get("memory"),
        "left out": left_out_text(document.get("left_out")),
        "chart": document.get("chart"),
    }


def clocks_text(clocks: Values) -> str | None:
    """A GPU's clocks before and after, their maxima and its power limit."""
    before, after = clocks.get("before"), clocks.get("after")
    if not before or not after:
        return None
    moved = (
        f"{name} {optional(before[key], '.0f')} MHz before, {optional(after[key], '.0f')} after"
        f" (at most {optional(before[most], '.0f')})"
        for name, key, most in (
            ("SM", "sm_mhz", "sm_max_mhz"),
            ("memory", "memory_mhz", "memory_max_mhz"),
        )
    )
    limit = optional(before["power_limit_w"], ".0f")
    heat = (
        f"{optional(before['temperature_c'], '.0f')} to {optional(after['temperature_c'], '.0f')}"
    )
    return f"{'; '.join(moved)}; power limit {limit} W; {heat} °C"


def processor_text(document: Values) -> str:
    """The CPU, the threads of torch, and how busy the machine was."""
    load = document["load"]
    busy = "" if load["before"] is None else f", load {load['before']} to {load['after']}"
    return f"{document['cpu']}, {document['threads']} of {document['cores']} threads{busy}"


def software_text(document: Values) -> str:
    """Torch, its libraries, dtype, and whether the networks were compiled."""
    parts = [f"torch {document['torch']}"]
    told = ((name, document.get(name.lower())) for name in LIBRARIES)
    parts += [f"{name} {version}" for name, version in told if version]
    compiled = "torch.compile of encode and decode" if document["compiled"] else "eager"
    return ", ".join([*parts, document["dtype"], compiled])


def flags_text(flags: Values | None) -> str | None:
    """The switches that change a GPU's speed, as the tool sets them for every job."""
    if not flags:
        return None
    words = (f"{name} {'on' if on else 'off'}" for name, on in flags.items())
    return f"{', '.join(words)}: as latentcli runs every job"


def weights_text(document: Values) -> str:
    """Where each model's weights came from, or that they are random."""
    if document["random_weights"]:
        return "random: the speed is that of the networks, the pictures mean nothing"
    return ", ".join(f"{m['model']} {m['weights']}" for m in document["models"])


def timing_text(document: Values) -> str:
    """How often each model was called."""
    budget = document.get("seconds")
    limit = "" if budget is None else f" (fewer after {budget:g} s)"
    repeats, untimed = document["repeats"], document["warmup"]
    calls = f"medians of {repeats} calls{limit}" if repeats > 1 else "one call"
    turns = "; the models take turns, and a speedup is the median over the turns"
    several = len(document["models"]) > 1
    return (
        f"{calls} after {untimed} untimed {'one' if untimed == 1 else 'ones'}"
        f"{turns if several else ''}"
    )


def ceilings_text(ceilings: Values | None) -> str | None:
    """What the machine did at most, measured in the models' turns."""
    if not ceilings:
        return None
    rates = ceilings["gflop_per_second"].items()
    products = ", ".join(f"{dtype} {rate:,.0f} GFLOP/s" for dtype, rate in rates)
    return f"products {products}; copies {ceilings['copy_gbyte_per_second']:,.1f} GB/s"


def checks_text(checks: list[Values] | None) -> str | None:
    """How far the outputs were from eager float32 at most."""
    if not checks:
        return None
    worst = max(checks, key=lambda check: check["relative_rms"])
    return (
        f"{len(checks)} output{'' if len(checks) == 1 else 's'} against eager float32, largest"
        f" relative RMS {worst['relative_rms']:.2g} ({worst['tolerance']:g} allowed)"
    )


def left_out_text(left_out: list[Values] | None) -> str | None:
    """The models that cannot do an op."""
    items = (f"{item['model']} in {item['op']}: {item['reason']}" for item in left_out or ())
    return "; ".join(items) or None


STAGE_COLUMNS = (
    Column("stage", lambda r: r["stage"], figure=False),
    Column("seconds", lambda r: f"{r['seconds']:.2f}"),
    Column("items", lambda r: f"{r['items']:,}"),
    Column("items/s alone", lambda r: optional(r["per_second"], ",.1f")),
)


def stages_tables(document: Values) -> Iterator[RenderableType]:
    """The stages of a whole encode job, and how near it comes to the slower of its halves."""
    yield make_table(
        STAGE_COLUMNS, ({"stage": name, **stage} for name, stage in document["stages"].items())
    )
    yield facts_table(
        {
            "image stages alone": f"{document['image_stages_alone']:,.1f} images/s",
            "model alone": f"{document['model_alone']:,.1f} images/s",
            "whole job": f"{document['job']:,.1f} images/s",
            "whole job / slower half": f"{document['ratio']:.2f}",
            "bottleneck": str(document["bottleneck"]),
        }
    )
