"""Builds roundtrip's --json document, with all settings that its figures depend on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from latentcli.core.json_values import rounded_value
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.find_media import FoundMedia
from latentcli.jobs.loader.sizes import preprocess_fields, size_filter_fields
from latentcli.jobs.roundtrip.compare import Comparison
from latentcli.jobs.roundtrip.figures import (
    ModelFigures,
    Summary,
    differences,
    extremes,
    latent_summary,
    rounded,
)
from latentcli.jobs.roundtrip.models import ComparedModel, divisor, name_of
from latentcli.jobs.roundtrip.rows import RowSpool
from latentcli.jobs.roundtrip.stream import Roundtrip
from latentcli.latents.stats import ChannelSums
from latentcli.metrics.measures import Measure
from latentcli.shards.tensors.foreign.latents import described_latents

NOT_MEASURED = ("psnr", "ssim", "ssim_gaussian")
"""Figures that every document has, if only as null."""


def document(run: Roundtrip, found: FoundMedia, preprocess: PreprocessSpec) -> dict[str, Any]:
    """The --json document."""
    job, meter = run.comparison.job, run.comparison.meter
    clips = found.media == "clips"
    return {
        "media": found.media,
        "clips": len(run.clips) if clips else None,
        "images": run.rows.count,
        "baseline": run.comparison.compared_models[0].name if job.baseline is not None else None,
        "models": [figures(run, i) for i in range(len(run.comparison.compared_models))],
        "delta": delta(run),
        "clip_figures": clip_figures(run) if clips else None,
        "measures": [
            *(
                measure_facts(m) | {"of": len(run.model_figures[0].figures[m.name])}
                for m in run.comparison.measures
            ),
            *(measure_facts(m) | {"set": True} for m in run.sets),
        ],
        "failed": len(run.failures.noted),
        "failures": run.failures.noted,
        "reasons": run.failures.reasons.counts(),
        "reason_examples": run.failures.reasons.examples(),
        "filtered": run.filtered.total(),
        "filter_reasons": dict(run.filtered.most_common()),
        "left_out": found.left_out,
        "left_out_by": found.left_out_by,
        "saved": job.save,
        "csv": job.csv,
        "report": job.report,
        "settings": settings(run, preprocess, clips=clips),
        "seconds": round(time.perf_counter() - meter.started, 3),
        **meter.paces(),
    }


def latents_text(comparison: Comparison) -> str:
    """Where the latents come from."""
    if comparison.cached is None:
        return "the model's own (mode), rounded to bf16"
    folder = comparison.cached.folder
    return f"of {folder.path}, {folder.format}: {described_latents(folder.space, folder.state)}"


def settings(run: Roundtrip, preprocess: PreprocessSpec, *, clips: bool) -> dict[str, Any]:
    """All that the figures depend on, and how each of them is made."""
    job, size, resized = run.comparison.job, preprocess.size, preprocess_fields(preprocess)
    models = run.comparison.compared_models
    return {
        "size": "x".join(map(str, size)) if size else None,
        "resize": resized["resize"],
        "buckets": resized.get("buckets"),
        "divisor": divisor(models),
        "filter": resized["filter"],
        "reducing_gaps": None if clips else resized.get("reducing_gaps"),
        "alpha": job.alpha,
        "size_filter": size_filter_fields(job) or None,
        "dtype": models[0].encoder.dtype,
        "compiled": any(each.decoder.compiled is not None for each in models),
        "device": models[0].encoder.device_name,
        "latents": latents_text(run.comparison),
        "cached": job.cached,
        "pixels": "clamped to [-1, 1] and rounded to 8 bits before anything is measured",
        "stride": job.stride if clips else None,
        "frames": job.frames,
        "num_frames": job.num_frames,
        **decode_settings(job, models),
        **{measure.name: measure.protocol for measure in run.comparison.measures},
        **{measure.name: measure.protocol for measure in run.sets},
        "difference_gain": job.difference_gain if job.report else None,
    }


def decode_settings(job: RoundtripJob, compared_models: Sequence[ComparedModel]) -> dict[str, Any]:
    """How diffusion decoders were run; None where there is none among the models."""
    names = ("steps", "sampler", "schedule", "pdg", "seed")
    if not any(compared.decoder.model.is_diffusion for compared in compared_models):
        return dict.fromkeys((*names, "pdg_strength"))
    fields = {name: getattr(job, name) for name in names}
    return fields | {"pdg_strength": job.pdg_strength if job.pdg else None}


def measure_facts(measure: Any) -> dict[str, Any]:
    """What a reader of figures needs to know of a measure."""
    names = ("name", "label", "unit", "digits", "higher_is_better", "protocol")
    return {name: getattr(measure, name) for name in names}


def figures(run: Roundtrip, i: int) -> dict[str, Any]:
    """One model's part of the document."""
    compared, of_model = run.comparison.compared_models[i], run.model_figures[i]
    engine = compared.decoder
    return {
        "model": compared.name,
        "encoder": name_of(compared.encoder),
        "decoder": name_of(engine),
        "geometry": engine.model.spec.geometry,
        "latent_space": engine.model.spec.space,
        "weights_sha256": compared.encoder.info.weights_sha256,
        "decoder_sha256": engine.info.weights_sha256,
        "device": engine.device_name,
        "dtype": engine.dtype,
        **dict.fromkeys(NOT_MEASURED),
        **{name: rounded(values) for name, values in of_model.figures.items()},
        **set_figures(run, i),
        "latents": latent_summary(latents_of(run, compared.encoder)),
        **named_extremes(run.comparison.measures, of_model, run.rows),
    }


def latents_of(run: Roundtrip, encoder: Engine) -> ChannelSums:
    """The sums of an encoder's latents, which the first model that uses it has."""
    pairs = zip(run.comparison.compared_models, run.model_figures, strict=True)
    return next(figures.latents for compared, figures in pairs if compared.encoder is encoder)


def set_figures(run: Roundtrip, i: int) -> dict[str, Any]:
    """Figures of the whole set, one number each, and what is to be said of them."""
    found = {each.name: each.value(i) for each in run.sets}
    notes = {f"{name}_note": value.note for name, value in found.items() if value.note}
    return {name: rounded_value(value.value, 4) for name, value in found.items()} | notes


def named_extremes(
    measures: Sequence[Measure], of_model: ModelFigures, rows: RowSpool
) -> dict[str, list[dict[str, Any]]]:
    """The worst and the best pictures by the first measure, with their names."""
    by = measures[0]
    values = of_model.figures[by.name]
    if len(values) < rows.count:
        return {"worst": [], "best": []}
    chosen = extremes(values, higher_is_better=by.higher_is_better)
    return {
        name: [
            {k: row[k] for k in ("key", "index")} | {by.name: rounded_value(values[i], 4)}
            for i in indices
            for row in [rows.at(i)]
        ]
        for name, indices in chosen.items()
    }


def delta(run: Roundtrip) -> list[dict[str, Any]] | None:
    """The differences of each model to the first one, image by image, in every measure."""
    first, *others = run.model_figures
    name, *names = (compared.name for compared in run.comparison.compared_models)
    return [
        {"model": model, "against": name}
        | {k: rounded(differences(v, first.figures[k])) for k, v in other.figures.items()}
        | {k: rounded(v) for k, v in other.alike.items()}
        for model, other in zip(names, others, strict=True)
    ] or None


def clip_figures(run: Roundtrip) -> list[dict[str, Any]]:
    """Of each model, the summaries over clips and the figures of each clip."""
    return [
        {
            "model": compared.name,
            **over_clips([clip["figures"][i] for clip in run.clips]),
            "clips": [
                {"key": clip["key"]}
                | {k: rounded_value(v, 4) for k, v in clip["figures"][i].items()}
                for clip in run.clips
            ],
        }
        for i, compared in enumerate(run.comparison.compared_models)
    ]


def over_clips(clips: Sequence[Mapping[str, float | None]]) -> dict[str, Summary | None]:
    """Each figure's name and its summary over the clips that have it."""
    names = dict.fromkeys(name for clip in clips for name in clip)
    return {
        name: rounded([v for clip in clips if (v := clip.get(name)) is not None]) for name in names
    }
