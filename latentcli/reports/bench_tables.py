"""The --json documents of bench in, tables as the model cards print them out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from latentcli.reports.tables import Column, Values, facts_table, make_table, optional

CASE_COLUMNS = (
    Column("resolution", lambda r: str(r["resolution"])),
    Column("batch", lambda r: str(r["batch"])),
    Column("model", lambda r: r["model"], figure=False),
    Column("ms/batch", lambda r: f"{r['ms_per_batch']:,.2f}"),
    Column("p25-p75", lambda r: span(r, "ms_p25", "ms_p75", ",.2f")),
)
RATE_COLUMNS = {
    "encode": Column("images/s", lambda r: f"{r['images_per_second']:,.1f}"),
    "decode": Column("ms/image", lambda r: f"{r['ms_per_batch'] / r['batch']:,.2f}"),
}
"""By op, the rate that the published table of that op has."""
MEMORY_COLUMN = Column("peak MiB", lambda r: optional(r["peak_memory_mib"], ",.1f"))
VERSUS_COLUMNS = (
    Column("speedup", lambda r: optional(r["speedup"], ".2f")),
    Column("p25-p75", lambda r: span(r, "speedup_p25", "speedup_p75", ".2f")),
    Column("memory saved", lambda r: optional(r["memory_reduction"], ".1%")),
)
REPEATS_COLUMN = Column("repeats", lambda r: str(r["repeats"]))


def span(row: Values, low: str, high: str, form: str) -> str:
    """Two figures with a dash between, or nothing where there are none."""
    if row.get(low) is None or row.get(high) is None:
        return ""
    return f"{format(row[low], form)}-{format(row[high], form)}"


def bench_tables(document: Values) -> Iterator[RenderableType]:
    """What was measured and how, then a table for each op; against the baseline if there is one."""
    yield facts_table(bench_facts(document))
    rows = document["rows"]
    extra = VERSUS_COLUMNS if any(row["speedup"] is not None for row in rows) else ()
    cut = any(row.get("repeats") not in (None, document.get("repeats")) for row in rows)
    for op in dict.fromkeys(row["op"] for row in rows):
        columns = (*CASE_COLUMNS, RATE_COLUMNS[op], MEMORY_COLUMN, *extra)
        yield Text(f"\n{heading(document, op)}")
        yield make_table(
            columns + ((REPEATS_COLUMN,) if cut else ()), (row for row in rows if row["op"] == op)
        )


def heading(document: Values, op: str) -> str:
    """What a table shows: the op, whether its rows are the published ones, against what."""
    parts = [op]
    table = document.get("preset_table")
    if table:
        parts = [f"{op}, the rows of the published table"]
        if table["batch"] is not None:
            parts = [
                f"{parts[0]} at batch size {table['batch']} instead of {table['published_batch']}"
            ]
    parts.append(f"{document['device']} {document['dtype']}")
    if document.get("compiled"):
        parts.append("compiled")
    if document.get("baseline"):
        parts.append(f"against {document['baseline']}")
    if document.get("random_weights"):
        parts.append("random weights")
    return ", ".join(parts)


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


def processor_text(document: Values) -> str | None:
    """The CPU, the threads of torch, and how busy the machine was."""
    if not document.get("cpu"):
        return None
    load = document["load"]
    busy = "" if load["before"] is None else f", load {load['before']} to {load['after']}"
    return f"{document['cpu']}, {document['threads']} of {document['cores']} threads{busy}"


def software_text(document: Values) -> str | None:
    """Torch, CUDA, dtype, and whether the networks were compiled."""
    if not document.get("torch"):
        return None
    parts = [f"torch {document['torch']}"]
    if document.get("cuda"):
        parts.append(f"CUDA {document['cuda']}, cuDNN {document['cudnn']}")
    compiled = "torch.compile of encode and decode" if document["compiled"] else "eager"
    return ", ".join([*parts, document["dtype"], compiled])


def flags_text(flags: Values | None) -> str | None:
    """The switches that change a GPU's speed, as the tool sets them for every job."""
    if not flags:
        return None
    words = (f"{name} {'on' if on else 'off'}" for name, on in flags.items())
    return f"{', '.join(words)}: as latentcli runs every job"


def weights_text(document: Values) -> str | None:
    """Where each model's weights came from, or that they are random."""
    if not document.get("models"):
        return None
    if document["random_weights"]:
        return "random: the networks' speed, of pictures that mean nothing"
    return ", ".join(f"{m['model']} {m['weights']}" for m in document["models"])


def timing_text(document: Values) -> str | None:
    """How often each model was called."""
    if "warmup" not in document:
        return None
    budget = document.get("seconds")
    limit = "" if budget is None else f" (fewer after {budget:g} s)"
    return (
        f"medians of {document['repeats']} calls{limit} after {document['warmup']} untimed ones;"
        " the models take turns, and a speedup is the median over the turns"
    )


def checks_text(checks: list[Values] | None) -> str | None:
    """How far the outputs were from eager float32 at most."""
    if not checks:
        return None
    worst = max(checks, key=lambda check: check["relative_rms"])
    return (
        f"{len(checks)} outputs against eager float32, largest relative RMS"
        f" {worst['relative_rms']:.2g} ({worst['tolerance']:g} allowed)"
    )


def left_out_text(left_out: list[Values] | None) -> str | None:
    """The models that cannot do an op."""
    if not left_out:
        return None
    return "; ".join(f"{item['model']} in {item['op']}: {item['reason']}" for item in left_out)


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
