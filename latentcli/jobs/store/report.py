"""Measures a store's latents, and writes the folder with the page that shows them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from latentcli.images.codec import encode_image
from latentcli.images.views import thumbnail
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.store.contents import StoreContents
from latentcli.jobs.store.damaged_reader import FRAMES, ReadableStore, spread
from latentcli.jobs.store.expected import Reference, reference_of
from latentcli.jobs.store.findings import deviations, findings
from latentcli.jobs.store.source_pictures import Sources
from latentcli.jobs.store.statistics import StoreStatistics
from latentcli.latents.pca import PcaBasis, colours, fit
from latentcli.shards.storage.atomic_write import writing

USUAL_SAMPLES = 2000
"""Samples that are read where the store itself holds the means of all."""
PREVIEW, FITTED, SHOWN, PAIRED = 16, 256, 200, 24
"""Samples that say where bins lie, that the colours come from, that are shown, and that are shown
beside what they were made from, where that is at hand."""
SOURCE_SIDE = 160
"""Longest side of the picture of a source, in pixels."""
CHANNELS_SHOWN = 4
"""Channels whose values are drawn: those farthest from what is expected."""


def measure_store(
    store: ReadableStore,
    contents: StoreContents,
    folder: Path,
    limit: int | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """The figures of the "report" part of the document; writes pictures below `folder`/files.

    `limit` is the most samples that are read, 0 for all; None is USUAL_SAMPLES where the commit
    records hold the means of all, and all otherwise. StoreError where nothing can be written.
    """
    total = store.samples
    recorded = contents.sums.summary()
    if limit is None:
        limit = USUAL_SAMPLES if recorded else 0
    indices = spread(limit or total, total)
    meter = Meter("inspect", len(indices), reporter.progress, noun="samples")
    meter.begin()
    found = read_statistics(store, indices, meter)
    report: dict[str, Any] = {
        "samples": total,
        "samples_read": found.samples if found else 0,
        "frames_read": found.frames if found else 0,
        "frames_per_clip": FRAMES,
        "spoiled": found.spoiled if found else 0,
        "mirrored": store.mirrored,
        "inputs": contents.encoded + contents.failed + contents.filters.total(),
        "failed": contents.failed,
        "told_inputs": store.manifest.totals.inputs if store.manifest else None,
        "status": store.manifest.status if store.manifest else None,
        "clips": store.metadata.get("media") == "clips",
        "state": store.metadata.get("state", "whitened"),
        **_figures(store, found),
        "recorded": recorded if _compares(store, found, recorded) else None,
        **contents.to_json(int(store.metadata.get("downscale", 1))),
    }
    report["thumbnails"] = _thumbnails(store, found, folder)
    report["damaged"] = {"count": store.damage.count, "problems": store.damage.sentences}
    return report | {"findings": findings(report)}


def read_statistics(store: ReadableStore, indices: Any, meter: Meter) -> StoreStatistics | None:
    """The figures of the samples of these indices; None where none can be read."""
    few = [indices[i] for i in spread(PREVIEW, len(indices))]
    preview = [latents for *_, latents in store.latents(few)]
    if not preview:
        return None
    found = StoreStatistics(preview)
    fitted = {indices[i] for i in spread(FITTED, len(indices))}
    for index, row, latents in store.latents(indices):
        try:
            found.add(index, row.key, latents, index in fitted)
        except ValueError as error:
            store.damage.add(f"{row.key!r}: {error}.")
        meter.advance(1)
    return found


def _figures(store: ReadableStore, found: StoreStatistics | None) -> dict[str, Any]:
    """What was measured of channels, values and samples, and what is expected."""
    if found is None:
        nothing = dict.fromkeys(("mean", "std", "min", "max"))
        return {
            "expected": asdict(Reference("")),
            "channels": {"mean": [], "std": [], "min": [], "max": [], "not_finite": []},
            "values": nothing | {"nan": 0, "infinite": 0},
            "histogram": None,
            "deviations": [],
            "channel_histograms": [],
            "rms": None,
            "extremes": {"lowest": [], "highest": []},
        }
    expected = reference_of(store.metadata.get("state", "whitened"), found.channels, store.metadata)
    values = found.values
    figures: dict[str, Any] = {
        "expected": asdict(expected),
        "channels": {
            "mean": found.sums.mean,
            "std": found.sums.std,
            "min": values.least.tolist(),
            "max": values.most.tolist(),
            "not_finite": (values.nan + values.infinite).tolist(),
        },
        "values": found.whole(),
        "histogram": values.to_json(),
        "rms": found.rms.to_json(),
        "extremes": found.extremes.to_json(),
    }
    away = figures["deviations"] = deviations(figures)
    worst = sorted(range(len(away)), key=lambda channel: (-away[channel], channel))
    figures["channel_histograms"] = [
        {"channel": channel, "deviation": away[channel]} | values.to_json(channel)
        for channel in worst[:CHANNELS_SHOWN]
    ]
    return figures


def _compares(
    store: ReadableStore, found: StoreStatistics | None, recorded: dict[str, list[float]] | None
) -> bool:
    """Whether the sums of the commit records are of what is read: of moments they are not."""
    if found is None or recorded is None or not found.sums.count:
        return False
    return store.metadata.get("state") != "moments" and len(recorded["mean"]) == found.channels


def _thumbnails(
    store: ReadableStore, found: StoreStatistics | None, folder: Path
) -> dict[str, Any] | None:
    """Writes the colours of samples spread over the store; what is shown, or None."""
    if found is None or not found.moments.count:
        return None
    basis = fit(found.moments)
    items: list[dict[str, Any]] = []
    shown = spread(SHOWN, store.samples)
    paired = {shown[i] for i in spread(PAIRED, len(shown))}
    sources = Sources(store)
    for index, row, latents in store.latents(shown):
        if latents.shape[1] != found.channels:
            continue
        name = f"files/{len(items) // 1000:03d}/{len(items):06d}"
        height, width = latents.shape[-2:]
        write(folder / f"{name}.pca.png", _picture(latents[len(latents) // 2], basis))
        item = {"file": f"{name}.pca.png", "key": row.key, "place": index, "size": [width, height]}
        pixels = sources.pixels(row) if index in paired else None
        source = None if pixels is None else f"{name}.source.webp"
        if pixels is not None:
            write(folder / f"{name}.source.webp", thumbnail(pixels, SOURCE_SIDE))
        items.append(item | {"source": source, "paired": index in paired})
    return {"explained": basis.explained, "fitted": found.fitted, "items": items}


def write(path: Path, data: bytes) -> None:
    """One picture; StoreError where the system refuses."""
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _picture(latent: torch.Tensor, basis: PcaBasis) -> bytes:
    """PNG of a latent [C, h, w]; values that are not finite are shown as the mean."""
    mean = torch.from_numpy(basis.mean).to(latent.dtype)[:, None, None]
    whole = torch.where(latent.isfinite(), latent, mean)
    return encode_image(colours(whole[None], basis)[0], "png")
