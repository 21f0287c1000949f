"""Builds the sections of a store's page on sizes, failures, damage and shards."""

from __future__ import annotations

from html import escape

from latentcli.core.byte_size import byte_words
from latentcli.reports.charts import bars, bucket_map
from latentcli.reports.page import TextCell, chart_figure, facts_list, figures_table
from latentcli.reports.tables import Values

MOST_BARS = 12
"""Reasons that are drawn; the table has more."""
MIB = 2**20


def sizes(report: Values) -> str:
    """The sizes of the samples, drawn and as a table."""
    found = report["buckets"]
    if not found["items"]:
        return "<p>No input gave a latent.</p>\n"
    if found["sizes"] == 1:
        (only,) = found["items"]
        of_pixels, of_latent = ("{} x {}".format(*only[of]) for of in ("pixels", "latent"))
        return f"<p>All pictures are {of_pixels} pixels, and their latents {of_latent}.</p>\n"
    pixels = {tuple(item["pixels"]): item["count"] for item in found["items"]}
    chart = bucket_map(pixels, title="Sizes of the pictures", unit="pixels")
    table = figures_table(
        ["pixels", "latent", "samples"],
        (
            [*("{} x {}".format(*item[of]) for of in ("pixels", "latent")), f"{item['count']:,}"]
            for item in found["items"]
        ),
        f"{found['sizes']:,} size{'' if found['sizes'] == 1 else 's'}, width x height",
    )
    figure = chart_figure(chart, "Each circle is one size; its area is the number of samples.")
    return f'<div class="charts">\n{figure}{table}</div>\n'


def failures(report: Values) -> str:
    """The inputs that gave no latent, by reason, drawn and as a table; nothing where all did."""
    found = report["failures"]
    if not found:
        return ""
    chart = bars(
        [(item["reason"], item["count"]) for item in found[:MOST_BARS]],
        title="Inputs that failed, by stage and reason",
        unit="inputs",
    )
    table = figures_table(
        ["stage and reason", "inputs", "such as"],
        (
            [item["reason"], f"{item['count']:,}", TextCell(", ".join(item["keys"]), False)]
            for item in found
        ),
        f"{report['failure_reasons']:,} reason{'' if report['failure_reasons'] == 1 else 's'}",
    )
    figure = chart_figure(chart, "Inputs that gave no latent, by stage and reason.")
    return f'<div class="charts">\n{figure}{table}</div>\n'


def shards(report: Values) -> str:
    """The shards' sizes, as figures and drawn."""
    found = report["shards"]
    facts = {"shards": f"{found['count']:,}", "together": byte_words(found["bytes"])}
    facts |= {name: byte_words(found[name]) for name in ("min", "median", "max") if found["count"]}
    chart = ""
    if found["count"]:
        items = found["items"]
        more = f", the first {len(items)} of them" if len(items) < found["count"] else ""
        svg = bars(
            [(f"{item['unit']:06d}", round(item["bytes"] / MIB, 3)) for item in items],
            title="Sizes of the shards",
            unit="MiB",
        )
        chart = chart_figure(svg, f"Size of each shard{more}.")
    return f"{facts_list(facts)}{chart}"


def damage(report: Values) -> str:
    """What cannot be read of the store, in sentences; nothing where all can."""
    problems = "".join(f"<li>{escape(text)}</li>\n" for text in report["damaged"]["problems"])
    return f"<ul>\n{problems}</ul>\n" if problems else ""
