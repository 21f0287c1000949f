"""Builds the HTML page of `inspect --report` from its document; it reads no file.

The page's pictures are those that the document names, relative to the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from latentcli.reports.charts import binned, channel_plot
from latentcli.reports.page import (
    chart_figure,
    facts_list,
    figures_table,
    folded,
    html_page,
    section,
)
from latentcli.reports.store_contents_page import damage, failures, shards, sizes
from latentcli.reports.store_pictures_page import pictures
from latentcli.reports.tables import Values, self_check_text, store_facts

MOST_ROWS = 12
"""Channels in the first table; that of all is folded."""
OPEN_FINDINGS = 3
"""Findings that stand in the open."""
FEW_SAMPLES = 30
"""Samples below which figures of a whole set are rough."""
NORMAL = "standard normal"


def store_page(document: Values) -> Iterator[str]:
    """The pieces of the page; `document["report"]` is as jobs.store_report makes it."""
    name = document["store"].rstrip("/").rpartition("/")[2] or document["store"]
    return html_page(f"Latents of {name}", _body(document, name), styles=("store_page.css",))


def _body(document: Values, name: str) -> Iterator[str]:
    report = document["report"]
    yield '<header class="masthead"><p>latentcli inspect</p></header>\n<main>\n'
    yield f'<header>\n<h1>{escape(name)}</h1>\n<p class="lead">{escape(_lead(document))}</p>\n'
    yield f"{_verdict(report, document.get('self_check'))}</header>\n"
    made = ((name, heading, make(report)) for name, heading, make in _SECTIONS)
    yield from (section(*each) for each in made if each[2])
    facts = {name: value or None for name, value in store_facts(document).items()}
    details = {
        "All facts": facts_list(facts | _check_facts(document.get("self_check"))),
        "Sizes of the shards": shards(report),
        "How it was measured": _how(report),
    }
    yield section("store", "The store", *(folded(*each) for each in details.items()))
    yield "</main>\n"


def _check_facts(check: Values | None) -> dict[str, object]:
    """The figures of the self-check by names that say what they are."""
    names = {
        "latent_rms": "self-check: RMS of the latents",
        "latent_mean": "self-check: mean of the latents",
        "channel_mean_max": "self-check: largest mean of a channel",
        "channel_std_min": "self-check: least std of a channel",
        "channel_std_max": "self-check: largest std of a channel",
    }
    return {text: _figure(check[name]) for name, text in names.items() if check and name in check}


def _lead(document: Values) -> str:
    metadata, noun = document["metadata"], "clip" if document["media"] == "clips" else "image"
    model = (document.get("model") or {}).get("name") or metadata.get("model") or "an unknown model"
    count = f"{document['encoded']:,} {noun}{'' if document['encoded'] == 1 else 's'}"
    failed = f", {document['failed']:,} failed" if document["failed"] else ""
    state = f", {metadata['state']}" if "state" in metadata else ""
    running = ". The job is not finished" if document.get("status") == "running" else ""
    return f"Latents of {count} by {model}{state}{failed}{running}."


def _verdict(report: Values, check: Values | None) -> str:
    found = report["findings"]
    came = self_check_text(check)
    checked = f"<p>{escape(came[0].upper() + came[1:])}.</p>\n" if check else ""
    few = ""
    if 0 < report["samples_read"] < FEW_SAMPLES:
        few = f"Figures of so few samples ({report['samples_read']}) are rough."
    if not found:
        return (
            '<div class="verdict good"><p><strong>Nothing stands out.</strong>'
            f" No value is NaN or infinite, and no channel is dead or far off. {few}</p>\n"
            f"{checked}</div>\n"
        )
    items = [f"<li>{escape(item['text'])}</li>\n" for item in found]
    rest = f"<ul>\n{''.join(items[OPEN_FINDINGS:])}</ul>\n"
    more = folded(f"{len(found) - OPEN_FINDINGS:,} more", rest) if items[OPEN_FINDINGS:] else ""
    count = f"{len(found):,} finding{'' if len(found) == 1 else 's'}"
    return (
        f'<div class="verdict bad"><p><strong>{count}.</strong> {few}</p>\n'
        f"<ul>\n{''.join(items[:OPEN_FINDINGS])}</ul>\n{more}{checked}</div>\n"
    )


_MARKS = {"mean": ("shifted",), "std": ("dead", "wide")}
"""The kinds of findings that a chart shows."""


def _channels(report: Values) -> str:
    own, expected = report["channels"], report["expected"]
    if not own["mean"]:
        return ""
    plots = []
    for what, word in (("mean", "mean"), ("std", "standard deviation")):
        wanted = expected[what]
        plot = channel_plot(
            own[what],
            title=f"Each channel's {word}",
            unit=word,
            expected=wanted,
            band=_band(what, expected),
            marked={f["channel"] for f in report["findings"] if f["kind"] in _MARKS[what]},
        )
        note = " What lies outside the grey band is ringed." if wanted else ""
        plots.append(chart_figure(plot, f"Each channel's {word}.{note}"))
    charts = f'<div class="charts">\n{"".join(plots)}</div>\n'
    words = escape(expected["words"])
    tables = folded("Channels as a table", f"{_channel_table(report)}{_recorded(report)}")
    return f"<p>{words}</p>\n{charts}{tables}"


def _band(what: str, expected: Values) -> tuple[list[float], list[float]] | None:
    if expected["mean"] is None:
        return None
    if what == "std":
        return [0.1 * s for s in expected["std"]], [2.5 * s for s in expected["std"]]
    pairs = list(zip(expected["mean"], expected["std"], strict=True))
    return [m - s for m, s in pairs], [m + s for m, s in pairs]


def _channel_table(report: Values) -> str:
    own, away = report["channels"], report["deviations"]
    headers = ["channel", "mean", "std", "min", "max", "not finite", "deviation"]
    order = sorted(range(len(away)), key=lambda i: (not own["not_finite"][i], -away[i], i))

    def rows(channels: Sequence[int]) -> Iterator[list[str]]:
        for i in channels:
            figures = (_figure(own[name][i]) for name in ("mean", "std", "min", "max"))
            yield [str(i), *figures, f"{own['not_finite'][i]:,}", _figure(away[i])]

    first = figures_table(headers, rows(order[:MOST_ROWS]), "Channels farthest from expected")
    if len(order) <= MOST_ROWS:
        return first
    every = figures_table(headers, rows(range(len(order))), "All channels")
    return f"{first}{folded(f'All {len(order)} channels', every)}"


def _recorded(report: Values) -> str:
    recorded = report["recorded"]
    if recorded is None:
        return ""
    own = report["channels"]
    away = max(abs(a - b) for a, b in zip(recorded["mean"], own["mean"], strict=True))
    return (
        f'<p class="note">The commit records hold the means of all {report["samples"]:,} samples;'
        f" those of the {report['samples_read']:,} that were read differ by {_figure(away)} at"
        " most.</p>\n"
    )


def _values(report: Values) -> str:
    whole, drawn, rms = report["values"], report["histogram"], report["rms"]
    if not drawn:
        return ""
    series: dict[str, Sequence[float]] = {"all channels": drawn["counts"]}
    if report["expected"]["whole_std"] is not None:
        series[NORMAL] = normal_counts(drawn)
    channels: dict[str, Sequence[float]] = {
        f"channel {item['channel']}": item["counts"] for item in report["channel_histograms"]
    }
    of_all = binned(
        *(series, drawn["low"], drawn["high"]),
        title="Values of all channels",
        unit="value",
        note=_outside([drawn]),
    )
    of_channels = binned(
        *(channels, drawn["low"], drawn["high"]),
        title="Values of the channels farthest from expected",
        unit="value",
        note=_outside(report["channel_histograms"]),
    )
    of_samples = binned(
        *({"samples": rms["counts"]}, rms["low"], rms["high"]),
        title="Size of each sample's latent",
        unit="root mean square of a sample's values",
        noun="samples",
        note=_outside([rms]),
    )
    shown = {
        "All values that were read.": of_all,
        "How large each sample's latent is: its norm over the root of its number of"
        " values.": of_samples,
    }
    charts = "".join(chart_figure(svg, caption) for caption, svg in shown.items())
    farthest = chart_figure(of_channels, "The channels farthest from what is expected.")
    more = f'<div class="charts">\n{farthest}{_extremes(report)}</div>\n'
    facts = {name: _figure(whole[name]) for name in ("mean", "std", "min", "max")}
    facts |= {"NaN": f"{whole['nan']:,}", "infinite": f"{whole['infinite']:,}"}
    every = folded("Channels and samples at the ends", more)
    return f'{facts_list(facts)}<div class="charts">\n{charts}</div>\n{every}'


def _outside(drawn: Sequence[Values]) -> str:
    below, above = (sum(item[name] for item in drawn) for name in ("below", "above"))
    return f"{below:,} values lie below, {above:,} above" if below or above else ""


def normal_counts(drawn: Values) -> list[float]:
    """How many of as many standard normal values would lie in each of a histogram's bins."""
    total = sum(drawn["counts"]) + drawn["below"] + drawn["above"]
    bins = len(drawn["counts"])
    step = (drawn["high"] - drawn["low"]) / bins
    ends = [math.erf((drawn["low"] + i * step) / math.sqrt(2)) / 2 for i in range(bins + 1)]
    return [total * (b - a) for a, b in pairwise(ends)]


def _extremes(report: Values) -> str:
    found = report["extremes"]
    if not found["lowest"]:
        return ""
    tables = (
        figures_table(
            ["sample", "RMS"],
            ([item["key"], _figure(item["rms"])] for item in found[end]),
            f"Samples of {end} RMS",
        )
        for end in ("lowest", "highest")
    )
    return f'<div class="tables">\n{"".join(tables)}</div>\n'


def _how(report: Values) -> str:
    read, total = report["samples_read"], report["samples"]
    of_clips = f", at most {report['frames_per_clip']} frames of each" if report["clips"] else ""
    sentences = (
        f"{read:,} of {total:,} samples were read{of_clips}, evenly over the store, so the same"
        " store gives the same page. <code>--report-samples N</code> reads more or fewer, and 0 all"
        " of them.",
        f"Samples with a value that is NaN or infinite ({report['spoiled']:,}) are left out of"
        " means, standard deviations and colours."
        if report["spoiled"]
        else "",
        "The latents of the mirrored pictures (<code>latent_flip</code> and the like) are in the"
        " store too, and are neither measured nor shown."
        if report["mirrored"]
        else "",
        "A channel is called dead where its standard deviation is under a tenth of the expected"
        " one. It is far off where that is more than 2.5 times the expected one, or where its mean"
        " is more than one expected standard deviation away.",
        "The deviation in the tables is the distance of the means in expected standard deviations,"
        " or the logarithm of the ratio of the standard deviations, whichever is larger.",
    )
    return "".join(f"<p>{text}</p>\n" for text in sentences if text)


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "none"
    return f"{value:.4g}"


_SECTIONS = (
    ("damage", "What cannot be read", damage),
    ("pictures", "Pictures", pictures),
    ("failures", "Failures", failures),
    ("channels", "Channels", _channels),
    ("values", "Values", _values),
    ("sizes", "Sizes", sizes),
)
"""Id, heading, and what makes the content from the report; a section without any is left out."""
