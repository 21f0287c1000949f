"""What holds for every format: refusals, states, steps that are gone on with, and --check."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from exportkit import COUNT, cases, job_for, samples_for, store_for, strangers
from harness.made_up_stores import SPACES, write_store

from latentcli.core.errors import StoreError, UsageError
from latentcli.exports.formats import NAMES, export_format, variant_for
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.journal import JOURNAL
from latentcli.jobs.export.options import ExportJob


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but the journal and the mark."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (JOURNAL, ".latentcli")
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The store of a case, made once."""
    made: dict[tuple[str, str, str], Path] = {}

    def store(name: str, arch: str, space: str) -> Path:
        case = name, arch, space
        if case not in made:
            path = tmp_path_factory.mktemp("stores") / f"{name}.latents"
            made[case] = store_for(path, export_format(name), space, arch=arch)
        return made[case]

    return store


def test_the_formats_are_those_of_their_names():
    for name in NAMES:
        assert export_format(name).name == name
        assert len({one.name for one in export_format(name).variants}) == len(
            export_format(name).variants
        )


@pytest.mark.parametrize("name, arch, space", cases())
def test_each_space_in_its_state(name, arch, space, stores, tmp_path):
    store = stores(name, arch, space)
    format = export_format(name)
    document = run_export(job_for(format, store, tmp_path / "out", arch=arch))
    variant = next(one for one in format.variants if one.name == arch)
    state = SPACES[space][0].state if variant.state == "normal" else variant.state
    assert document["latent_space"] == f"{space if space != 'toy' else 'lab/toy'}#{state}"
    assert document["samples"] == COUNT and document["files"] and not document["forced"]
    checked = run_export(ExportJob(store=str(store), check=str(tmp_path / "out")))
    assert checked["wrong"] == {} and checked["samples"] == COUNT


@pytest.mark.parametrize("name, space", strangers())
def test_other_spaces_are_refused(name, space, tmp_path):
    format = export_format(name)
    store = write_store(tmp_path / "s.latents", samples_for(format, space), space)
    with pytest.raises(UsageError) as caught:
        run_export(ExportJob(store=str(store), to=name, output=str(tmp_path / "out")))
    named = "lab/toy" if space == "toy" else space
    assert f"of the space {named}" in str(caught.value)
    assert any(other in str(caught.value) for one in format.variants for other in one.spaces)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_steps_that_are_missing_are_done_again(name, stores, tmp_path):
    _, arch, space = next(case for case in cases() if case[0] == name)
    store, format = stores(name, arch, space), export_format(name)
    size = 2 if format.group else None
    whole, part = tmp_path / "whole", tmp_path / "part"
    run_export(job_for(format, store, whole, arch=arch, samples_per_file=size))
    shutil.copytree(whole, part)
    lines = (part / JOURNAL).read_bytes().splitlines(keepends=True)
    # As a kill leaves it: the last line is cut, and the files of the whole are not there yet.
    (part / JOURNAL).write_bytes(b"".join(lines[:-1]) + lines[-1][:7])
    kept = b"".join(lines[1:-1]).decode()
    for path in files_of(part):
        if path not in kept:
            (part / path).unlink()
    document = run_export(job_for(format, store, part, arch=arch, samples_per_file=size))
    assert document["steps_done_before"] == len(lines) - 2
    assert files_of(part) == files_of(whole)
    assert (part / JOURNAL).read_bytes().splitlines() == [line.rstrip() for line in lines]
    for path in files_of(part):
        (part / path).write_bytes(b"other")
    with pytest.raises(StoreError, match="does not match"):
        run_export(ExportJob(store=str(store), check=str(part)))


@pytest.mark.parametrize("name", NAMES)
def test_a_store_that_changed_is_exported_anew(name, tmp_path):
    _, arch, space = next(case for case in cases() if case[0] == name)
    format = export_format(name)
    store = store_for(tmp_path / "s.latents", format, space, arch=arch)
    out, fresh = str(tmp_path / "out"), str(tmp_path / "fresh")
    run_export(job_for(format, store, out, arch=arch))
    with pytest.raises(UsageError, match=r"holds another export|holds no classes"):
        run_export(job_for(format, store, out, arch=arch, labels="folder"))
    shutil.rmtree(store)
    kept = samples_for(format, space)[2:]
    store_for(store, format, space, kept, arch)
    with pytest.raises(StoreError):
        run_export(ExportJob(store=str(store), check=out))
    run_export(job_for(format, store, out, arch=arch))
    run_export(job_for(format, store, fresh, arch=arch))
    assert files_of(Path(out)) == files_of(Path(fresh))


@pytest.mark.parametrize("force", [False, True])
def test_other_channels_are_refused_by_the_names_of_the_spaces(force, tmp_path):
    """The first thing that is told is whose latents they are, and whose are wanted."""
    kohya = export_format("kohya")
    store = write_store(tmp_path / "s.latents", samples_for(kohya, "flux2"), "flux2")
    job = ExportJob(store=str(store), to="kohya", arch="sdxl", output="x", force=force)
    with pytest.raises(UsageError) as caught:
        run_export(job)
    said = str(caught.value)
    assert "latents are of the space flux2" in said and "sdxl" in said
    first = said.split(".")[0]
    assert "flux2" in first and "sdxl" in first and "channels" not in first
    assert ("They have 128 channels and not 4" in said) == force


def test_a_variant_has_to_be_named_where_several_fit():
    kohya = export_format("kohya")
    with pytest.raises(UsageError, match=r"--arch with one of flux .*lumina"):
        variant_for(kohya, "flux1", ("scaled", "raw"), None, False)
    assert variant_for(kohya, "flux1", ("scaled", "raw"), "lumina", False).name == "lumina"
    with pytest.raises(UsageError, match="--arch is 'sdx'; kohya has"):
        variant_for(kohya, "flux1", ("scaled", "raw"), "sdx", False)
    with pytest.raises(UsageError, match="--force needs --arch"):
        variant_for(kohya, "lab/toy", ("whitened", "raw"), None, True)
