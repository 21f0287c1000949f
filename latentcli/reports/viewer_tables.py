"""Builds a roundtrip's smaller HTML tables: of whole clips and of the latents."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from latentcli.reports.page import TextCell, figures_table
from latentcli.reports.tables import Values

OF_CLIPS = {
    "psnr": ("PSNR, dB", 2),
    "psnr_pooled": ("Pooled PSNR, dB", 2),
    "ssim": ("SSIM", 4),
    "temporal": ("Flicker, levels", 3),
    "motion": ("Motion, levels", 3),
}
"""Figures of a whole clip: heading and decimals."""
CLIPS_NOTE = (
    "PSNR and SSIM: mean over the frames. Pooled PSNR: of the mean squared error of the whole clip."
    " Flicker: how much the error changes from frame to frame, in 8-bit levels; 0 is an error that"
    " stands still. Motion: the same of the original itself, to compare with."
)
LATENTS_NOTE = (
    "Channel std: from the channel of the least to that of the most. PCA: the part of the variance"
    " that the three colours of the latents show."
)


def minus(text: str) -> str:
    """A number with a minus sign as wide as a plus."""
    return text.replace("-", "−")


def single(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return "–" if value is None else minus(f"{value:.{digits}f}")


def clips_table(document: Values) -> str:
    """What is measured of clips as wholes: the mean over all of them, and each clip."""
    models = document.get("clip_figures")
    if not models:
        return ""
    names = [name for name in OF_CLIPS if any(model.get(name) for model in models)]
    heads = [OF_CLIPS[name][0] for name in names]
    means = (
        [model["model"], *(single((model.get(n) or {}).get("mean"), OF_CLIPS[n][1]) for n in names)]
        for model in models
    )
    every = (
        [clip["key"], TextCell(model["model"], False), *clip_cells(clip, names)]
        for index in range(len(models[0]["clips"]))
        for model in models
        for clip in [model["clips"][index]]
    )
    return (
        figures_table(["Model", *heads], means, "Whole clips, mean of each figure")
        + f'<p class="note">{escape(CLIPS_NOTE)}</p>\n<details>\n<summary>Each clip</summary>\n'
        + figures_table(["Clip", "Model", *heads], every)
        + "</details>\n"
    )


def clip_cells(clip: Values, names: list[str]) -> Iterator[str]:
    """The figures of one clip; PSNR is infinite where it came back identical."""
    for name in names:
        unbounded = name.startswith("psnr") and name in clip and clip[name] is None
        yield "∞" if unbounded else single(clip.get(name), OF_CLIPS[name][1])


def latents_table(document: Values) -> str:
    """Size, mean and spread of each model's latents, and how alike they are to the baseline's."""
    models = [model for model in document["models"] if model.get("latents")]
    if not models:
        return ""
    alike = {d["model"]: d.get("latent_cosine") for d in document.get("delta") or ()}
    against = next((d["against"] for d in document.get("delta") or ()), "")
    heads = ["Model", "Latents", "Mean", "Std", "Channel std"]
    shared = any(alike.values())
    explained = any(model.get("pca_explained") is not None for model in models)
    heads += ["PCA"] * explained + [f"Cosine to {against}"] * shared
    rows: list[list[str]] = []
    for model in models:
        cosine = (alike.get(model["model"]) or {}).get("mean")
        row = [model["model"], str(model["geometry"]), *latent_cells(model["latents"])]
        row += [share(model.get("pca_explained"))] * explained + [single(cosine, 4)] * shared
        rows.append(row)
    table = figures_table(heads, rows, "Latents over all pictures")
    return f'{table}<p class="note">{escape(LATENTS_NOTE)}</p>\n'


def latent_cells(latents: Values) -> Iterator[str]:
    """Mean, standard deviation, and the channels' least and largest one."""
    yield single(latents["mean"], 4)
    yield single(latents["std"], 4)
    spread = latents.get("channel_std")
    yield f"{single(min(spread), 3)} to {single(max(spread), 3)}" if spread else "–"


def share(part: float | None) -> str:
    """A part as a percentage."""
    return "–" if part is None else f"{100 * part:.0f}%"
