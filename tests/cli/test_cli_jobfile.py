"""Flags, job files and defaults become the right job, and mistakes are told in words."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.cli.jobfile import read_job_file, resolve
from latentcli.core.errors import UsageError
from latentcli.core.options import options_of
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.config import DecodeJob, EncodeJob, RoundtripJob
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.video.config import VideoDistanceJob, VideoEmbedJob

JOBS = {
    "encode": EncodeJob,
    "decode": DecodeJob,
    "roundtrip": RoundtripJob,
    "bench": BenchJob,
    "verify": VerifyJob,
    "export": ExportJob,
}

SOURCES = {"sources": ["a"]}


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "job.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(tmp_path: Path, text: str, verb: str = "encode") -> str:
    with pytest.raises(UsageError) as caught:
        resolve(JOBS[verb], verb, {"config": written(tmp_path, text)})
    return str(caught.value)


def test_flags_beat_the_file_which_beats_defaults(tmp_path: Path) -> None:
    config = written(
        tmp_path, "[batch]\nbatch_size = 3\n[preprocess]\nfilter = 'box'\n[encode]\nsample = 0\n"
    )
    job, set_fields = resolve(
        EncodeJob, "encode", {"config": config, "batch_size": 5, "size": None, "sources": ["a"]}
    )
    assert (job.batch_size, job.filter, job.sample, job.alpha) == (5, "box", 0, "white")
    assert job.sources == ("a",)
    assert set_fields == {"batch_size", "filter", "sample", "sources"}


def test_values_that_are_false_or_zero_are_given(tmp_path: Path) -> None:
    config = written(tmp_path, "[encode]\nself_check = true\n[read]\nworkers = 4\n")
    job, _ = resolve(
        EncodeJob, "encode", {"config": config, "self_check": False, "workers": 0} | SOURCES
    )
    assert job.self_check is False
    assert job.workers == 0


def test_without_anything_the_job_is_its_defaults() -> None:
    assert resolve(BenchJob, "bench", {"config": None, "sources": [], "json": True}) == (
        BenchJob(),
        frozenset(),
    )


def test_commas_and_repeats_make_lists() -> None:
    params = {"resolution": ["256,512x384", "64"], "batch": ["1, 2", "4"], "models": ["a,b", "c"]}
    job, _ = resolve(BenchJob, "bench", params)
    assert job.resolution == ("256", "512x384", "64")
    assert job.batch == (1, 2, 4)
    assert job.models == ("a,b", "c")


@pytest.mark.parametrize("value", ['"a"', '["a"]'])
def test_model_in_a_file_is_models_where_there_may_be_several(tmp_path: Path, value: str) -> None:
    config = written(tmp_path, f"[model]\nmodel = {value}\n")
    assert resolve(RoundtripJob, "roundtrip", {"config": config} | SOURCES)[0].models == ("a",)


def test_numbers_may_stand_for_text(tmp_path: Path) -> None:
    job, _ = resolve(
        EncodeJob,
        "encode",
        {"config": written(tmp_path, "[preprocess]\nsize = 256\n[read]\nmax_bad = 3\n")} | SOURCES,
    )
    assert (job.size, job.max_bad) == ("256", "3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[batch]\nbatchsize = 1", "[batch] has no key 'batchsize' for encode (did you mean"),
        ("[batch]\nbatchsize = 1", "allowed are batch_size."),
        ("[read]\nbatch_size = 1", "it belongs in [batch]; allowed are sources, media"),
        ("[preprocess]\nresolution = 1", "encode (did you mean size or area?); allowed are size"),
        ("[read]\nresolution = 1", "you mean size in [preprocess] or area in [preprocess]?)"),
        ("[model]\nbf16 = true", '(did you mean dtype = "bf16"?)'),
        ("[preprocess]\nrandom_crop = true", "for encode. latentcli encode crops at the centre"),
        ("[preproces]\nsize = 1", "[preproces] (did you mean 'preprocess'?); allowed are read,"),
        ("[decode]\nsteps = 1", "[decode] has no key 'steps' for encode; encode has no settings"),
        ("size = 1", "unknown section [size]"),
        ("read = 1", "read must be a section, written [read]"),
        ("batch_size", "not valid TOML"),
        ('[batch]\nbatch_size = "x"', "[batch] batch_size is 'x'; expected a whole number"),
        ("[batch]\nbatch_size = 1.5", "expected a whole number"),
        ("[batch]\nbatch_size = '8'", "[batch] batch_size is '8'; expected a whole number"),
        ("[batch]\nbatch_size = true", "expected a whole number"),
        ("[encode]\nself_check = 1", "expected true or false"),
        ("[read]\nsources = [1.5]", "expected text or a list of texts"),
        ("[read]\nsources = [['a']]", "expected text or a list of texts"),
        ("[batch]\nbatch_size = 0", "--batch-size is 0; it must be at least 1"),
        ("[preprocess]\nfilter = 'cubic'", "allowed are lanczos, bicubic, bilinear, box"),
        ("[read]\nmax_bad = 'x'", "--max-bad is 'x'"),
        ('verb = "decode"', "is not a job for encode; run latentcli decode --config"),
    ],
)
def test_mistakes_in_a_file_are_told(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal(tmp_path, text)


@pytest.mark.parametrize("value", ["nan", "inf", "true", "'x'"])
def test_numbers_must_be_finite(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, f"[decode]\npdg_strength = {value}", "decode")
    assert "expected a number" in message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job file .*none\.toml cannot be read: No such file"):
        resolve(EncodeJob, "encode", {"config": str(tmp_path / "none.toml")})


def test_a_flag_of_a_wrong_type_is_told_by_its_option() -> None:
    with pytest.raises(UsageError, match=r"--batch is .*'x'.*; expected a whole number or a list"):
        resolve(BenchJob, "bench", {"batch": ["1,x"]})


def test_what_is_needed_is_asked_for() -> None:
    with pytest.raises(UsageError, match="Give what to read"):
        resolve(EncodeJob, "encode", {})


# Fields that a job file does not have: they are about one run and not about the job.
FLAGS_ONLY = {"dry_run"}


@pytest.mark.parametrize("verb", JOBS)
def test_every_field_has_a_place_in_a_job_file(verb: str) -> None:
    options = options_of(JOBS[verb])
    assert options.keys() == {field.name for field in fields(JOBS[verb])}
    assert {told.key for told in options.values() if not told.section} <= FLAGS_ONLY


def test_no_key_stands_in_two_sections() -> None:
    homes: dict[str, set[str]] = {}
    for job in (*JOBS.values(), VideoEmbedJob, VideoDistanceJob):
        for told in options_of(job).values():
            homes.setdefault(told.key, set()).add(told.section)
    assert {key: found for key, found in homes.items() if len(found) != 1} == {}


def toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


VALUES = {
    "workers": st.integers(0, 64),
    "batch_size": st.integers(1, 4096),
    "seed": st.integers(-(2**31), 2**31),
    "steps": st.integers(1, 100),
    "pdg": st.booleans(),
    "pdg_strength": st.floats(0, 100),
    "output": st.from_regex(r"[\w ./-]{1,20}", fullmatch=True).map(str.strip).filter(bool),
}


@settings(max_examples=50, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES), st.fixed_dictionaries({}, optional=VALUES))
def test_any_mixture_of_file_and_flags(
    tmp_path_factory: pytest.TempPathFactory, told: dict[str, Any], flags: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("job") / "job.toml"
    options = options_of(DecodeJob)
    by_section: dict[str, list[str]] = {}
    for name, value in told.items():
        by_section.setdefault(options[name].section, []).append(f"{name} = {toml(value)}")
    lines = [line for s, body in by_section.items() for line in (f"[{s}]", *body)]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_job_file(path, "decode", options) == told
    job, names = resolve(DecodeJob, "decode", {"config": str(path), **flags, "store": "x"})
    assert names == told.keys() | flags.keys() | {"store"}
    for name, value in {**told, **flags}.items():
        assert getattr(job, name) == value
