"""Builds the HTML around a roundtrip's pictures: tables that need no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from latentcli.reports.page import TextCell, facts_list, figures_table
from latentcli.reports.roundtrip_tables import (
    FIGURES,
    pictures_text,
    pictures_word,
    sampling_text,
    set_notes,
)
from latentcli.reports.tables import Values
from latentcli.reports.viewer_tables import clips_table, latents_table, minus, single

JUDGED = ("mean", "median")
"""Statistics of a difference that are better or worse; a spread is neither."""
MODEL_FACTS = ("encoder", "decoder", "geometry", "latent_space", "dtype", "device")
SHORT = 2
"""Models up to which the short table on top has their differences too."""
WORDS = {"pdg": "path-drop guidance", "geometry": "latents"}
"""Keys of a document that are no words themselves."""


def title_of(document: Values) -> str:
    """Roundtrip of a, b and c; the baseline comes last, after `against`."""
    names = [model["model"] for model in document["models"]]
    baseline = document.get("baseline")
    rest = [name for name in names if name != baseline]
    if baseline in names and rest:
        return f"{listed(rest)} against {baseline}"
    return f"Roundtrip of {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def of_pictures(document: Values) -> list[Values]:
    """The measures of single pictures, without those of whole sets."""
    return [m for m in document["measures"] if not m.get("set")]


def opening(document: Values) -> Iterator[str]:
    """Title, what was measured, the means of each model, and where the rest stands."""
    yield '<header class="opening">\n'
    yield f'<h1>{escape(title_of(document))}</h1>\n<p class="lead">{escape(lead(document))}</p>\n'
    yield headline(document)
    yield '<nav aria-label="On this page">\n<a href="#spread">Charts</a>\n'
    yield '<a href="#figures">All figures</a>\n<a href="#method">How it was measured</a>\n'
    yield "</nav>\n</header>\n"


def figures(document: Values) -> Iterator[str]:
    """All figures, failures, and how it was done."""
    yield '<section aria-labelledby="figures">\n<h2 id="figures">Figures</h2>\n'
    yield f'<div class="tables">\n<div>{summary_table(document)}{set_table(document)}</div>\n'
    yield f"<div>{extremes(document)}</div>\n<div>{latents_table(document)}</div>\n</div>\n"
    yield clips_table(document)
    yield failures(document)
    yield "</section>\n"
    yield method(document)


def headline(document: Values) -> str:
    """The mean of each measure of each model and, of one or two, of the difference."""
    measures = document["measures"]
    if not measures:
        return ""
    heads = (f'<th scope="col">{escape(measure_name(m))}</th>' for m in measures)
    rows = "".join(headline_rows(document, i) for i in order(document))
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Mean figures of each model">\n'
        '<table class="figures">\n<thead><tr><th scope="col" class="text">Mean of</th>'
        f"{''.join(heads)}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n</div>\n"
    )


def order(document: Values) -> list[int]:
    """Indices of the models, the baseline last."""
    names = [model["model"] for model in document["models"]]
    return sorted(range(len(names)), key=lambda i: names[i] == document.get("baseline"))


def headline_rows(document: Values, index: int) -> str:
    """A model's means, and those of its difference to the baseline."""
    model, measures = document["models"][index], document["measures"]
    cells = "".join(f"<td>{mean_text(model.get(m['name']), m)}</td>" for m in measures)
    row = f'<tr><th scope="row" class="text">{mark(index, model)}</th>{cells}</tr>\n'
    deltas = [d for d in document.get("delta") or () if d["model"] == model["model"]]
    if len(document["models"]) > SHORT or not deltas:
        return row
    cells = "".join(
        delta_cell(deltas[0].get(m["name"]) or {}, "mean", m) for m in measures if not m.get("set")
    ) + "<td></td>" * sum(bool(m.get("set")) for m in measures)
    label = escape(f"− {deltas[0]['against']}")
    return f'{row}<tr class="delta"><th scope="row" class="text">{label}</th>{cells}</tr>\n'


def mean_text(value: Any, measure: Values) -> str:
    """A measure's mean, or the one figure of a whole set."""
    if measure.get("set"):
        return single(value, measure["digits"])
    return figure_text(value, "mean", measure)


def mark(index: int, model: Values) -> str:
    """A model's name with the colour that it has in the charts."""
    dot = f'<span class="swatch" style="--mark: var(--series-{index % 6})"></span>'
    return f"{dot}{escape(model['model'])}"


def measure_name(measure: Values) -> str:
    """PSNR, dB."""
    return f"{measure['label']}, {measure['unit']}" if measure.get("unit") else measure["label"]


def lead(document: Values) -> str:
    """2,000 images (3 more could not be used), 256x256, bf16 on an H200, 1 ddim step, seed 42."""
    failed = document.get("failed") or 0
    lost = f" ({failed:,} more could not be used)" if failed else ""
    return f"{pictures_text(document)}{lost}, {', '.join(leading(document))}."


def leading(document: Values) -> Iterator[str]:
    """What runs differ in most; the other settings stand under how it was measured."""
    settings = document.get("settings") or {}
    yield size_text(settings)
    ran = {f"{m['dtype']} on {m['device']}" for m in document["models"] if m.get("dtype")}
    if ran:
        yield listed(sorted(ran))
    yield from sampling_text(settings)


def size_text(settings: Values) -> str:
    """The size at which the pictures went through the models."""
    if settings.get("size"):
        return value_text(settings["size"])
    if settings.get("buckets"):
        return "in buckets"
    cropped = f" cropped to multiples of {settings['divisor']}" if settings.get("divisor") else ""
    return f"own size{cropped}"


def words(name: str) -> str:
    """A key of a document as words."""
    return WORDS.get(name, name.replace("_", " "))


def value_text(value: object) -> str:
    """A setting's value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def summary_table(document: Values) -> str:
    """The statistics of every measure of every model, with the differences to the baseline."""
    measures = of_pictures(document)
    if not measures:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in map(str.capitalize, FIGURES))
    groups = "".join(measure_rows(document, measure) for measure in measures)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Figures of each model">\n'
        '<table class="figures summary">\n<thead><tr><th scope="col" class="text">Model</th>'
        f"{head}</tr></thead>\n{groups}</table>\n</div>\n"
    )


def measure_rows(document: Values, measure: Values) -> str:
    """A measure's heading, then the models, each with its difference below it."""
    better = "higher is better" if measure["higher_is_better"] else "lower is better"
    if measure.get("of", document["images"]) < document["images"]:
        rest = f"{document['images'] - measure['of']:,}" if measure["of"] else "all"
        better += f"; {rest} {pictures_word(document)} are too small for it"
    name = escape(measure_name(measure))
    heading = (
        f'<tr><th scope="rowgroup" class="text measure" colspan="{len(FIGURES) + 1}">'
        f"<span>{name}<small>{better}</small></span></th></tr>\n"
    )
    lines = "".join(model_rows(document, i, measure) for i in range(len(document["models"])))
    return f"<tbody>\n{heading}{lines}</tbody>\n"


def model_rows(document: Values, index: int, measure: Values) -> str:
    """A model's statistics, and those of its difference to the baseline where there is one."""
    model, key = document["models"][index], measure["name"]
    cells = "".join(
        f'<td class="{name}">{figure_text(model.get(key), name, measure)}</td>' for name in FIGURES
    )
    row = f'<tr><th scope="row" class="text">{mark(index, model)}</th>{cells}</tr>\n'
    deltas = (d for d in document.get("delta") or () if d["model"] == model["model"])
    return row + "".join(delta_row(delta, measure) for delta in deltas if delta.get(key))


def delta_row(delta: Values, measure: Values) -> str:
    """The statistics of a difference, image by image; what was not computed stays empty."""
    statistics = delta[measure["name"]]
    cells = "".join(delta_cell(statistics, name, measure) for name in FIGURES)
    label = escape(f"− {delta['against']}")
    return f'<tr class="delta"><th scope="row" class="text">{label}</th>{cells}</tr>\n'


def delta_cell(statistics: Values, name: str, measure: Values) -> str:
    """One statistic of a difference with its sign, better or worse where that has a meaning."""
    if name not in statistics:
        return "<td></td>"
    value, digits = statistics[name], measure["digits"]
    if value is None:
        return "<td>–</td>"
    if name == "std":
        return f"<td>{value:.{digits}f}</td>"
    text = minus(f"{value:+.{digits}f}")
    if float(text.replace("−", "-")) == 0:
        return f"<td>{0:.{digits}f}</td>"
    if name not in JUDGED:
        return f"<td>{text}</td>"
    kind = "good" if (value > 0) == measure["higher_is_better"] else "bad"
    return f'<td class="{kind}">{text}</td>'


def figure_text(summary: Values | None, name: str, measure: Values) -> str:
    """One statistic; None is infinite where identical pictures have no upper end."""
    if not isinstance(summary, Mapping) or name not in summary:
        return "–"
    value = summary[name]
    if value is None:
        return "∞" if name != "std" and measure["higher_is_better"] else "–"
    return minus(f"{value:.{measure['digits']}f}")


def set_table(document: Values) -> str:
    """Measures of whole sets: one number per model."""
    measures = [m for m in document["measures"] if m.get("set")]
    if not measures:
        return ""
    headers = ["Model", *(m["label"] for m in measures)]
    rows = (
        [model["model"], *(single(model.get(m["name"]), m["digits"]) for m in measures)]
        for model in document["models"]
    )
    table = figures_table(headers, rows, "Of all pictures together")
    notes = (f'<p class="note">{escape(note)}</p>\n' for note in set_notes(document))
    return table + "".join(notes)


def extremes(document: Values) -> str:
    """Names of the worst and the best pictures of each model, which open them."""
    if not document["measures"]:
        return ""
    label = escape(document["measures"][0]["label"])
    rows = [
        [model["model"], *links]
        for i, model in enumerate(document["models"])
        if any(links := [named(document, i, which) for which in ("worst", "best")])
    ]
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row" class="text">{escape(name)}</th>'
        f'<td class="text">{worst}</td><td class="text">{best}</td></tr>\n'
        for name, worst, best in rows
    )
    heads = "".join(
        f'<th scope="col" class="text">{name}</th>'
        for name in ("Model", f"Worst {label}", f"Best {label}")
    )
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Worst and best pictures">\n'
        f'<table class="figures named"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{lines}</tbody></table></div>\n"
    )


def named(document: Values, index: int, which: str) -> str:
    """The pictures that a model did worst or best on, as links with their first measure.

    A figure of None is a picture that came back identical.
    """
    name, digits = document["measures"][0]["name"], document["measures"][0]["digits"]
    return "".join(
        f'<div><a href="#image-{int(one["index"])}">{escape(one["key"])}</a>'
        f"<span>{'∞' if one[name] is None else single(one[name], digits)}</span></div>"
        for one in document["models"][index].get(which, ())
    )


def failures(document: Values) -> str:
    """What could not be used, and why."""
    failed = document.get("failures") or ()
    if not failed:
        return ""
    rows = ([TextCell(f["key"], False), TextCell(f["error"], False)] for f in failed)
    count = document.get("failed") or len(failed)
    table = figures_table(["Input", "Reason"], rows)
    return f"<details>\n<summary>{count:,} could not be used</summary>\n{table}</details>\n"


def method(document: Values) -> str:
    """The models, the settings and how each measure is defined."""
    headers = ["Model", *(words(name).capitalize() for name in MODEL_FACTS)]
    rows = (
        [model["model"], *(TextCell(str(model.get(k) or "–"), False) for k in MODEL_FACTS)]
        for model in document["models"]
    )
    settings = {
        words(k).capitalize(): value_text(v)
        for k, v in (document.get("settings") or {}).items()
        if v is not None
    }
    protocols = {m["label"]: m.get("protocol") for m in document["measures"]}
    return (
        '<section aria-labelledby="method">\n<h2 id="method">How it was measured</h2>\n'
        f"{figures_table(headers, rows)}<details>\n<summary>Settings and measures</summary>\n"
        f"<h3>Settings that change the figures</h3>\n{facts_list(settings)}<h3>Measures</h3>\n"
        f"{facts_list(protocols)}</details>\n"
        "</section>\n"
    )
