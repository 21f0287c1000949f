"""Builds roundtrip's tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from latentcli.reports.tables import Column, Values, buckets_text, make_table

FIGURES = ("mean", "std", "median", "min", "p5", "p95", "max")
"""The statistics of a measure over all images."""


def roundtrip_tables(document: Values) -> Iterator[RenderableType]:
    """Figures of each model, the differences to the first, and the images at the ends."""
    first, *others = document["measures"]
    yield Text(
        f"{named(first)} of {pictures_text(document)} ({settings_text(document)})"
        + (f"; mean of {', '.join(map(named, others))}" if others else "")
    )
    yield from map(Text, too_small(document))
    yield shown(columns(first, others), document["models"])
    yield from map(Text, set_notes(document))
    if document.get("delta"):
        yield Text(f"Difference to {document['delta'][0]['against']}, image by image")
        yield shown(columns(first, others, sign=True), document["delta"])
    if document.get("clip_figures"):
        yield Text("Whole clips, mean of each figure")
        yield shown(CLIP_COLUMNS, document["clip_figures"])
    for model in document["models"]:
        yield from extremes(model, first)


def shown(columns: Sequence[Column], rows: Sequence[Values]) -> Table:
    """A table without the columns that no row fills."""
    return make_table([c for c in columns if any(c.cell(row) for row in rows)], rows)


def named(measure: Values) -> str:
    """A measure and its unit."""
    return f"{measure['label']} in {measure['unit']}" if measure["unit"] else str(measure["label"])


def columns(first: Values, others: Sequence[Values], *, sign: bool = False) -> list[Column]:
    """All figures of the first measure, and the mean of each other one; differences have a sign.

    Models have no cosine, and their differences no geometry: `shown` leaves these columns out.
    """
    name, digits = first["name"], first["digits"]
    signs = {figure: sign and figure != "std" for figure in FIGURES}
    return [
        Column("model", lambda r: r["model"], figure=False),
        Column("latents", lambda r: r.get("geometry", ""), figure=False),
        *(
            Column(head(f), partial(cell, name=name, key=f, digits=digits, sign=signs[f]))
            for f in FIGURES
        ),
        *(mean_column(measure, sign=sign) for measure in others),
        Column("latent cosine", partial(cell, name="latent_cosine", key="mean", digits=4)),
    ]


def mean_column(measure: Values, *, sign: bool) -> Column:
    """The mean of a measure; of one for the whole set, its value."""
    name, digits = measure["name"], measure["digits"]
    return Column(measure["label"], partial(cell, name=name, key="mean", digits=digits, sign=sign))


def head(figure: str) -> str:
    """A figure as a column is headed: P5, mean."""
    return figure.upper() if figure[1:].isdigit() else figure


def cell(row: Values, *, name: str, key: str, digits: int, sign: bool = False) -> str:
    """A figure, or nothing where the row has none; None is inf, and no figure for a difference."""
    found = row.get(name)
    if found is None:
        return ""
    value = found[key] if isinstance(found, Mapping) else found
    if value is None:
        return "–" if sign else "inf"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text if float(text) else f"{0:.{digits}f}"


CLIP_COLUMNS = (
    Column("model", lambda r: r["model"], figure=False),
    Column("PSNR", partial(cell, name="psnr", key="mean", digits=2)),
    Column("PSNR pooled", partial(cell, name="psnr_pooled", key="mean", digits=2)),
    Column("SSIM", partial(cell, name="ssim", key="mean", digits=4)),
    Column("temporal", partial(cell, name="temporal", key="mean", digits=3)),
    Column("motion", partial(cell, name="motion", key="mean", digits=3)),
)
"""temporal and motion are in 8-bit levels a frame."""


def extremes(model: Values, measure: Values) -> Iterator[Text]:
    """The worst and best images of a model, where there are enough of them to be worth it."""
    worst, best = model.get("worst") or [], model.get("best") or []
    if len(worst) > 1:
        yield Text(
            f"{model['model']}: worst {listed(worst, measure)}; best {listed(best, measure)}"
        )


def listed(images: Sequence[Values], measure: Values) -> str:
    """Names with their figures."""
    name, digits = measure["name"], measure["digits"]
    return ", ".join(
        f"{image['key']} {cell(image, name=name, key='', digits=digits) or 'inf'}"
        for image in images
    )


def too_small(document: Values) -> Iterator[str]:
    """A sentence for each measure that some of the pictures were too small for."""
    for measure in document["measures"]:
        if measure.get("of", document["images"]) < document["images"]:
            rest = f"{document['images'] - measure['of']:,}" if measure["of"] else "all of them"
            yield f"{measure['label']} leaves out {rest}, which are too small for it"


def set_notes(document: Values) -> list[str]:
    """What keeps the figures of whole sets from being comparable with others."""
    names = [f"{measure['name']}_note" for measure in document["measures"]]
    notes = (model.get(name) for model in document["models"] for name in names)
    return [note for note in dict.fromkeys(notes) if note]


def pictures_word(document: Values) -> str:
    """What the figures are of."""
    return "frames" if document.get("media") == "clips" else "images"


def pictures_text(document: Values) -> str:
    """2,000 images, or 300 frames of 4 clips."""
    count, of = document["images"], document.get("clips")
    text = f"{count:,} {pictures_word(document)[: -1 if count == 1 else None]}"
    return f"{text} of {of:,} clip{'' if of == 1 else 's'}" if of else text


def settings_text(document: Values) -> str:
    """The settings that the figures depend on."""
    settings = document["settings"]
    size = settings["size"] or f"own size cropped to multiples of {settings['divisor']}"
    if settings.get("buckets"):
        size = buckets_text(settings["buckets"])
    return ", ".join([size, settings["dtype"], *sampling_text(settings), "8-bit pixels"])


def sampling_text(settings: Values) -> Iterator[str]:
    """How diffusion decoders were run, where there are any."""
    if settings.get("steps") is not None:
        plural = "" if settings["steps"] == 1 else "s"
        yield f"{settings['steps']} {settings['sampler']} step{plural}"
        if settings.get("pdg"):
            yield f"path-drop guidance {settings['pdg_strength']}"
        yield f"seed {settings['seed']}"
