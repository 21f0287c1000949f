"""Computes the Frechet distance between two files of features, and notes on how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.options import check_options
from latentcli.jobs.video.config import COMPAT, VideoDistanceJob
from latentcli.jobs.video.feature_file import MUST_AGREE, FeatureFile, differences, open_features
from latentcli.metrics.frechet import FeatureSums, frechet_distance


def run_video_distance(job: VideoDistanceJob) -> dict[str, Any]:
    """The --json document of `video-distance`. The files are streamed, so they may be long.

    UsageError where the files do not go together, unless `force`.
    """
    check_options(job)
    with open_features(Path(job.a)) as a, open_features(Path(job.b)) as b:
        if a.dim != b.dim:
            raise UsageError(
                f"The features have {a.dim:,} values in {a.path} and {b.dim:,} in {b.path}; a"
                " distance needs features of one network in both."
            )
        forced = check_agreement(a, b, job.force)
        try:
            distance = frechet_distance(sums_of(a), sums_of(b), job.compat)
        except ValueError as error:
            raise UsageError(f"{a.path} and {b.path}: {error}.") from error
        return {
            "distance": distance,
            "compat": job.compat,
            "a": described(a),
            "b": described(b),
            "notes": [*forced, *notes(a, b, job.compat)],
        }


def check_agreement(a: FeatureFile, b: FeatureFile, force: bool) -> list[str]:
    """UsageError where the files say that they were made differently; with `force` a note."""
    found = differences(a.metadata, b.metadata)
    if not found:
        return []
    listed = "; ".join(f"{name} is {x!r} and {y!r}" for name, (x, y) in found.items())
    if force:
        return [f"The features were made differently, so the distance may mean nothing: {listed}."]
    raise UsageError(
        f"{a.path} and {b.path} were made differently: {listed}. Make both in the same way;"
        " --force compares them anyway."
    )


def sums_of(file: FeatureFile) -> FeatureSums:
    """Count, mean and covariance of a file's rows."""
    sums = FeatureSums(file.dim)
    for rows in file.chunks():
        sums.add(rows)
    return sums


def described(file: FeatureFile) -> dict[str, Any]:
    """A file's part of the document; None for what it does not say."""
    return {
        "path": str(file.path),
        "rows": file.rows,
        "dim": file.dim,
        **{name: file.metadata.get(name) for name in (*MUST_AGREE, "autoencoder")},
    }


def notes(a: FeatureFile, b: FeatureFile, compat: str) -> list[str]:
    """Sentences that whoever quotes the distance should know."""
    said = []
    if compat != "centred":
        said.append(f"--compat {compat} takes {COMPAT[compat]}.")
    for file in (a, b):
        if file.rows < file.dim:
            said.append(
                f"{file.path} has {file.rows:,} rows for {file.dim:,} dimensions, so its"
                " covariance is singular and the distance is biased upwards: compare it only with"
                " distances of the same number of rows."
            )
    unknown = [str(file.path) for file in (a, b) if "extractor" not in file.metadata]
    if unknown:
        said.append(
            f"{' and '.join(unknown)} {'does' if len(unknown) == 1 else 'do'} not say how the"
            " features were made; that they go together could not be checked."
        )
    return said
