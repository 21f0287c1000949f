"""Jobs as they are resolved: choices, numbers, sections, and how many inputs may fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.errors import UsageError
from latentcli.core.options import SECTIONS, check_options, options_of
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.config import DecodeJob, EncodeJob, RoundtripJob
from latentcli.jobs.runtime.failures import allowed_failures
from latentcli.jobs.store.config import VerifyJob

JOBS = (EncodeJob, DecodeJob, RoundtripJob, BenchJob, VerifyJob)


@pytest.mark.parametrize("job", JOBS)
def test_defaults_are_allowed(job):
    made = job()
    check_options(made)
    for name, told in options_of(job).items():
        value = getattr(made, name)
        if told.choices:
            assert set(value if isinstance(value, tuple) else [value]) <= {None, *told.choices}


@pytest.mark.parametrize(
    ("job", "name"),
    [(job, name) for job in JOBS for name, told in options_of(job).items() if told.choices],
)
def test_a_value_outside_its_choices_is_named_with_them(job, name):
    told = options_of(job)[name]
    with pytest.raises(UsageError, match="none of them") as caught:
        check_options(job(**{name: "none of them"}))
    assert str(caught.value).startswith(f"{told.flags[0]} is ")
    assert all(choice in str(caught.value) for choice in told.choices)
    for choice in told.choices:
        check_options(job(**{name: choice}))


@pytest.mark.parametrize(
    "job",
    [
        EncodeJob(batch_size=0),
        EncodeJob(samples_per_shard=0),
        EncodeJob(max_pixels=0),
        EncodeJob(workers=-1),
        DecodeJob(steps=0),
        DecodeJob(batch_size=-3),
        DecodeJob(workers=-1),
        RoundtripJob(steps=0),
        BenchJob(repeats=0),
        BenchJob(warmup=-1),
        BenchJob(batch=(8, 0)),
    ],
)
def test_numbers_that_cannot_be(job):
    with pytest.raises(UsageError, match="at least"):
        check_options(job)


def test_no_workers_are_allowed_for_loaders():
    none = EncodeJob(workers=0)
    check_options(none)
    assert none.workers == 0
    with pytest.raises(UsageError, match="--workers is -1; it must be at least 0"):
        check_options(replace(none, workers=-1))


@pytest.mark.parametrize(
    ("text", "inputs", "allowed"),
    [("0", 50, 0), ("7", 3, 7), (" 2 ", 3, 2), ("0.5%", 1000, 5), ("0.5%", 199, 0), ("100%", 7, 7)],
)
def test_allowed_failures(text, inputs, allowed):
    assert allowed_failures(text, inputs) == allowed


@pytest.mark.parametrize("text", ["", "%", "-1", "some", "101%", "5 percent", "nan", "inf", "nan%"])
def test_what_is_no_number_of_failures(text):
    with pytest.raises(UsageError, match="max-bad"):
        allowed_failures(text, 10)


@given(st.floats(0, 100), st.integers(0, 10**7))
def test_a_share_is_never_more_than_all(percent, inputs):
    assert 0 <= allowed_failures(f"{percent}%", inputs) <= inputs


def test_every_section_has_options_and_no_option_another_one():
    found = {told.section for job in JOBS for told in options_of(job).values()}
    assert found == {*SECTIONS, ""}


def test_importing_the_jobs_loads_no_torch():
    code = "import sys, latentcli.jobs.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
