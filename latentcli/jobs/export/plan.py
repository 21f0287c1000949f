"""Resolves an export before anything is written: the format, its setting, and what forbids it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import Row
from latentcli.exports.format import ExportFormat, Setting, Variant
from latentcli.exports.formats import export_format, variant_for
from latentcli.jobs.export.geometry import Geometry, geometry_of
from latentcli.jobs.export.labels import AUTO, Label, label_of
from latentcli.jobs.export.options import ExportJob, no_format
from latentcli.jobs.export.samples import Place, Reading, name_of
from latentcli.jobs.export.steps import STEP, Work
from latentcli.jobs.export.surroundings import (
    check_surroundings,
    forced_warnings,
    root_of,
    warnings_of,
)
from latentcli.jobs.export.write import output_folder
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.presence import repair_advice


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """All that an export depends on."""

    job: ExportJob
    store: LatentStore
    manifest: Manifest
    format: ExportFormat
    folder: Path
    """That the files go to, as it was given."""
    setting: Setting
    reading: Reading
    rows: Sequence[Row]
    """Of the samples, in their order."""
    step: int
    """Samples of each step, which leaves whole files."""
    warnings: Sequence[str] = ()
    """What a person should know before training."""

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.rows)

    @property
    def work(self) -> Work:
        """What is sent to the processes that write."""
        return Work(
            to=self.format.name,
            folder=self.folder,
            setting=self.setting,
            reading=self.reading,
            count=self.count,
            step=self.step,
        )

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return self.work.steps

    def identity(self) -> dict[str, Any]:
        """What an export of the same options has in common with this one; JSON values."""
        return {
            "format": self.format.name,
            "arch": self.setting.variant.name,
            "latent_space": f"{self.setting.space}#{self.setting.state}",
            "dtype": self.setting.dtype,
            "latents": self.setting.state if is_open(self.format) else None,
            "sample": self.job.sample,
            "labels": self.job.labels,
            "step": self.step,
            "bytes_column": self.setting.bytes_column,
        }


def plan_export(job: ExportJob) -> ExportPlan:
    """The plan of an export; nothing is written yet.

    StoreError where the store is not whole, UsageError where the format cannot hold its latents,
    lacks what it needs, or two samples would have one file.
    """
    if job.to is None:
        raise no_format()
    format = export_format(job.to)
    store = LatentStore(path_of(job.store))
    manifest = manifest_of(store)
    space = manifest.latent_space.rpartition("#")[0]
    variant = variant_for(format, space, store.normalisation.states, job.arch, job.force)
    check_channels(format, variant, manifest)
    state = wanted_state(job, format, variant.state, store.normalisation.states)
    geometry = geometry_of(manifest.preprocessing, manifest.latent["downscale"])
    rows, others, places = all_rows(store)
    check_whole(store)
    packed = manifest.tars
    check_names(format, rows, packed)
    problem = sizing_problem(format, variant, geometry, rows, job.force)
    shapes = shapes_of(rows)
    check_needs(format, job, store, shapes)
    label = labels_for(job, format, store, rows, others, places)
    folder = output_folder(job.check or job.output or default_output(store, format))
    setting = Setting(
        variant=variant,
        space=space,
        state=state,
        downscale=manifest.latent["downscale"],
        channels=manifest.latent["channels"],
        shape=next(iter(shapes)) if len(shapes) == 1 else None,
        count=len(rows),
        labels=label.names,
        labelled=label.is_there,
        dtype=wanted_dtype(job, format),
        mirrored=bool(manifest.spec["latents"].get("flip")),
        bytes_column=job.bytes_column,
        forced=bool(variant.spaces) and space not in variant.spaces,
        statistics=raw_statistics(manifest, store),
        sizing=geometry.sizing(),
        folder=str(folder.absolute()),
        root=str(folder.absolute() / format.pictures) if job.link_images else root_of(rows, packed),
    )
    check_setting(format, job, setting, rows, packed)
    return ExportPlan(
        job=job,
        store=store,
        manifest=manifest,
        format=format,
        folder=folder,
        setting=setting,
        reading=reading_of(job, format, store, places, setting, label, shapes),
        rows=rows,
        step=step_of(format, job, rows, setting.mirrored),
        warnings=(
            *forced_warnings(setting, problem),
            *warnings_of(format, setting, rows, others, packed),
        ),
    )


def reading_of(
    job: ExportJob,
    format: ExportFormat,
    store: LatentStore,
    places: Sequence[Place],
    setting: Setting,
    label: Label,
    shapes: Collection[tuple[int, int]],
) -> Reading:
    """How the samples are read; `shapes` are (h, w) of the latents."""
    return Reading(
        store=store,
        places=places,
        setting=setting,
        label=label,
        needs=format.needs,
        sample=job.sample,
        packed=manifest_of(store).tars,
        largest=max(shapes, key=prod, default=(0, 0)),
        fields=format.fields or bool(label.fields) or job.link_images,
    )


def step_of(format: ExportFormat, job: ExportJob, rows: Sequence[Row], mirrored: bool) -> int:
    """Samples of a step: of a file, where it holds several, so many that they fit into memory."""
    if not format.group:
        return STEP
    if job.samples_per_file:
        return job.samples_per_file
    values = max((prod(row.latent_shape) for row in rows if row.latent_shape), default=1)
    fitting = (format.group_bytes or sys.maxsize) // (values * 4 * (1 + mirrored))
    return max(1, min(format.group, fitting))


def labels_for(
    job: ExportJob,
    format: ExportFormat,
    store: LatentStore,
    rows: list[Row],
    others: list[Row],
    places: list[Place],
) -> Label:
    """How classes are found; UsageError as `label_of`."""
    needed = "labels" in format.needs
    if not takes_labels(format):
        return Label()
    fields = (
        one
        for unit, first, count in places
        for one in store.unit_fields(
            unit, [row.key for row in rows[first : first + count]]
        ).values()
    )
    keys, missing = ((row.key for row in some) for some in (rows, others))
    return label_of(job.labels, keys, missing, fields, needed)


def takes_labels(format: ExportFormat) -> bool:
    """Whether a format has a place for classes: those of no one trainer, and of ImageNet's."""
    return is_open(format) or bool({"labels", "moments"} & format.needs)


def shapes_of(rows: Iterable[Row]) -> set[tuple[int, int]]:
    """(h, w) of all latents."""
    return {(row.latent_shape[-2], row.latent_shape[-1]) for row in rows if row.latent_shape}


def default_output(store: LatentStore, format: ExportFormat) -> str:
    """<store name>.<format>."""
    return f"{store.path.name.removesuffix('.latents')}.{format.name}"


def manifest_of(store: LatentStore) -> Manifest:
    """The store's manifest; StoreError where there is none, or the store holds clips."""
    if store.manifest is None:
        raise StoreError(f"{store.path} is a single shard; name the folder of its store.")
    if "clips" in store.manifest.spec:
        raise StoreError(f"{store.path} holds clips; the formats of exports are for pictures.")
    return store.manifest


def check_whole(store: LatentStore) -> None:
    """StoreError where a store, all of whose records have been read, is not whole."""
    if store.presence.is_whole and store.misses_fields():
        store.look_closely()
    if not store.presence.is_whole:
        raise StoreError(
            f"{store.path} is not complete ({store.presence.describe()}), so samples would be"
            f" missing in the export. {repair_advice(store.path)}"
        )


def all_rows(store: LatentStore) -> tuple[list[Row], list[Row], list[Place]]:
    """Rows of the samples, in their order, those of inputs without a latent, and the units of the
    first.
    """
    samples: list[Row] = []
    others: list[Row] = []
    places: list[Place] = []
    for unit, rows in store.rows_by_unit():
        first = len(samples)
        for row in rows:
            (samples if row.status == "ok" else others).append(row)
        places.append(Place(unit, first, len(samples) - first))
    return samples, others, places


def check_channels(format: ExportFormat, variant: Variant, manifest: Manifest) -> None:
    """UsageError where the trainer cannot take so many channels, whatever is forced."""
    found, channels = manifest.latent["channels"], variant.channels
    if channels is not None and found != channels:
        raise UsageError(
            f"The store's latents are of the space {manifest.latent_space.rpartition('#')[0]}, and"
            f" {format.name} would take them as {variant.name}'s, of {' or '.join(variant.spaces)}."
            f" They have {found} channels and not {channels}, so no trainer can take them, and"
            " --force does not help."
        )


def wanted_state(
    job: ExportJob, format: ExportFormat, expected: str, states: tuple[str, str]
) -> str:
    """The state that latents are written in; UsageError where it cannot be had."""
    state = states[0] if expected == "normal" else expected
    if job.latents not in (None, state):
        if not is_open(format):
            raise UsageError(
                f"--latents is {job.latents}, and {format.name} is read as {state}: leave it out."
            )
        state = job.latents or state
    if state in states:
        return state
    if job.force and job.latents is None:
        return states[0]
    raise UsageError(
        f"{state} latents are wanted, and those of this store can be {' or '.join(states)}."
    )


def is_open(format: ExportFormat) -> bool:
    """Whether a format leaves it to its user what latents it holds."""
    return not any(one.spaces for one in format.variants)


def wanted_dtype(job: ExportJob, format: ExportFormat) -> str:
    """The dtype of latents in the files; UsageError for one that the format does not have."""
    if job.file_dtype is not None and job.file_dtype not in format.dtypes:
        raise UsageError(
            f"--dtype is {job.file_dtype}; {format.name} holds {' or '.join(format.dtypes)}."
        )
    return job.file_dtype or format.dtypes[0]


def check_names(format: ExportFormat, rows: list[Row], packed: bool) -> None:
    """UsageError where two samples would have one file, with both named."""
    if format.path is None:
        return
    owners: dict[str, str] = {}
    for row in rows:
        path = format.path(name_of(row, packed))
        if owners.setdefault(path, row.key) != row.key:
            raise UsageError(
                f"{owners[path]!r} and {row.key!r} would both be {path!r} in {format.name}, which"
                " tells pictures apart by that name alone. Rename one, or export parts of the"
                " dataset to separate folders. Nothing was written."
            )


def check_setting(
    format: ExportFormat, job: ExportJob, setting: Setting, rows: Sequence[Row], packed: bool
) -> None:
    """UsageError where the setting, or what is around the export, forbids it."""
    if job.bytes_column and not format.has_bytes_column:
        raise UsageError(f"--bytes-column is for mds; {format.name} has no such column.")
    if job.samples_per_file and not format.group:
        raise UsageError(
            f"--samples-per-file is {job.samples_per_file}, and {format.name} has files for each"
            " sample: leave it out."
        )
    if job.labels != AUTO and not takes_labels(format):
        raise UsageError(f"--labels is {job.labels!r}, and {format.name} holds no classes.")
    format.check(setting)
    if not job.force:
        check_surroundings(format, setting, rows, packed)


def sizing_problem(
    format: ExportFormat, variant: Variant, geometry: Geometry, rows: list[Row], force: bool
) -> str | None:
    """Why the trainer would compute other sizes than the latents have; None where it would not.

    UsageError for such sizes, unless they are forced.
    """
    problems = (geometry.problem(format, variant, row) for row in rows)
    problem = next(filter(None, problems), None)
    if problem and not force:
        raise UsageError(
            f"The trainer would not take these latents, or train on wrong ones: {problem}. Encode"
            " with the trainer's own rule; --force writes them anyway."
        )
    return problem


def check_needs(
    format: ExportFormat, job: ExportJob, store: LatentStore, shapes: set[tuple[int, int]]
) -> None:
    """UsageError where the store lacks what the format cannot do without."""
    moments = store.state == "moments"
    if "moments" in format.needs and not (moments and has_spread(store)):
        raise UsageError(
            f"{format.name} holds the mean and the deviation of each latent, and the store has"
            f" {store.state} latents: encode with --latents moments, with a model whose posterior"
            " has a variance."
        )
    if "files" in format.needs and store.manifest is not None and store.manifest.tars:
        raise UsageError(
            f"{format.name} makes the names of its files from those of the pictures' files, and"
            " these are in tars or tables: unpack them and encode the folder."
        )
    if "text" in format.needs and not job.force:
        raise UsageError(
            f"{format.name} is trained on embeddings of the captions, which a store does not have,"
            " so the trainer cannot use the files as they are. --force writes them without"
            " embeddings, for you to add."
        )
    if job.sample is not None and not moments:
        raise UsageError(
            f"--sample draws from the posterior, and the store has only {store.state} latents."
        )
    if job.sample is not None and "moments" in format.needs:
        raise UsageError(
            f"{format.name} holds the posterior itself, and its trainer draws the samples: leave"
            " out --sample."
        )
    if {"one_size", "square"} & format.needs and len(shapes) > 1:
        some = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise UsageError(
            f"{format.name} needs latents of one size, and the store has {len(shapes)}, such as"
            f" {some}: encode with --size."
        )
    if "square" in format.needs and any(h != w for h, w in shapes):
        raise UsageError(f"{format.name} needs square latents: encode with --size and one number.")


def has_spread(store: LatentStore) -> bool:
    """Whether the store's moments have a variance."""
    key = next(iter(store), None)
    return key is None or len(store.parts(key)) > 1


def raw_statistics(
    manifest: Manifest, store: LatentStore
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Per channel, mean and deviation of the raw latents over the store; None where unknown."""
    if manifest.channels is None:
        return None
    mean, std = (tuple(manifest.channels[name]) for name in ("mean", "std"))
    if store.state in ("raw", "moments"):
        return mean, std
    normal = store.normalisation
    return (
        tuple(m * s + shift for m, s, shift in zip(mean, normal.std, normal.mean, strict=True)),
        tuple(d * s for d, s in zip(std, normal.std, strict=True)),
    )
