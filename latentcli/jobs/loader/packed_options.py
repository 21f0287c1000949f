"""Checks the options of packed inputs on the first of them, before a model is loaded."""

from __future__ import annotations

from latentcli.core.errors import UsageError
from latentcli.jobs.loader.find_media import SUFFIXES, FoundMedia
from latentcli.jobs.loader.readers import READERS
from latentcli.jobs.loader.table_reader import TableReader, absolute_root
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.settings.images import ImageIntake


def check_packed_options(job: ImageIntake, found: FoundMedia, reporter: Reporter = SILENT) -> None:
    """UsageError where the options do not go with the inputs, or the first table has no pictures.

    A note says which column is taken where there are several of pictures. What cannot be read is
    left to the job, in which it is a failed row.
    """
    kind = READERS[found.kind]
    if job.image_field is not None and not kind.packed:
        raise UsageError(
            "--image-field is for tars and tables, and the sources are files of their own; leave it"
            " out."
        )
    if not issubclass(kind, TableReader):
        if job.image_root is not None:
            raise UsageError(
                "--image-root is for tables that name files, such as .jsonl; leave it out."
            )
        return
    reader = kind(
        *(SUFFIXES[found.media], Meter("look", None)),
        image_field=job.image_field,
        image_root=absolute_root(job.image_root),
    )
    note = reader.look(found.inputs[0].path)
    if note is not None:
        reporter.note(note)
