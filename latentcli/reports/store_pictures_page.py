"""Builds the section of a store's page that shows latents as pictures, beside their sources."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from latentcli.reports.page import folded
from latentcli.reports.tables import Values


def pictures(report: Values) -> str:
    """The colours of samples, some beside what they were made from; others are folded."""
    found = report["thumbnails"]
    if not found:
        return ""
    shown = f"{len(found['items']):,} of {report['samples']:,} samples, evenly over the store"
    if len(found["items"]) == report["samples"]:
        shown = "Every sample"
    beside = any(item["source"] for item in found["items"])
    sources = " On the left the picture, on the right its latent." if beside else ""
    text = (
        f"{shown}.{sources} The three principal components of the latents are red, green and blue;"
        f" grey is the mean. One basis for all, from {samples_text(found['fitted'])}, which holds"
        f" {found['explained']:.0%} of the variance."
    )
    rest = [item for item in found["items"] if not item["paired"]]
    more = folded(f"{len(rest):,} more", tiles(rest)) if rest else ""
    return f"{tiles(item for item in found['items'] if item['paired'])}<p>{text}</p>\n{more}"


def samples_text(count: int) -> str:
    """1 sample, 24 samples."""
    return f"{count:,} sample{'' if count == 1 else 's'}"


def tiles(items: Iterable[Values]) -> str:
    """A list of samples: the source where there is one, the latent, and the key."""
    return f'<ul class="thumbs">\n{"".join(map(tile, items))}</ul>\n'


def tile(item: Values) -> str:
    """One sample."""
    key, (width, height) = escape(item["key"]), item["size"]
    source = (
        f'<img class="source" loading="lazy" decoding="async" src="{escape(item["source"])}"'
        f' width="{width}" height="{height}" alt="Source of {key}">'
        if item["source"]
        else ""
    )
    latent = (
        f'<img loading="lazy" decoding="async" src="{escape(item["file"])}" width="{width}"'
        f' height="{height}" alt="Latent of {key} in three colours">'
    )
    pair = ' class="pair"' if source else ""
    shown = f"<div{pair}>{source}{latent}</div>"
    name = f'<figcaption title="{key}">{key}</figcaption>'
    return f"<li><figure>{shown}{name}</figure></li>\n"
