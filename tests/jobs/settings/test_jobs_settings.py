"""The options that several jobs share: what each refuses, in the words of its own flag."""

from __future__ import annotations

import pytest

from latentcli.core.errors import UsageError
from latentcli.core.options import check_options, options_of
from latentcli.jobs.config import DecodeJob, EncodeJob, RoundtripJob
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.settings.follow import FollowSettings
from latentcli.jobs.settings.model import MemorySettings
from latentcli.jobs.store.config import VerifyJob


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"max_memory": "much"}, "--max-memory is 'much'"),
        ({"size": "512x"}, "--size is '512x'"),
        ({"area": "0"}, "--area is '0'"),
        ({"metrics_file": "job.txt"}, "--metrics-file is 'job.txt'"),
        ({"track": "mlflow"}, "--track is 'mlflow'"),
    ],
)
def test_an_option_that_cannot_be_read_is_named_with_what_was_typed(settings, found):
    with pytest.raises(UsageError) as caught:
        check_options(EncodeJob(**settings))
    assert found in str(caught.value)


def test_a_limit_of_memory_is_read_as_bytes():
    assert MemorySettings(max_memory="1.5GiB").most_bytes == 3 << 29
    assert MemorySettings().most_bytes is None


@pytest.mark.parametrize("job", [EncodeJob, DecodeJob, RoundtripJob, ExportJob])
def test_every_long_job_can_be_followed(job):
    shared = options_of(FollowSettings)
    assert options_of(job).items() >= shared.items()


@pytest.mark.parametrize("job", [ExportJob, VerifyJob])
def test_a_store_is_the_argument_of_its_jobs(job):
    told = options_of(job)["store"]
    assert told.argument
    assert told.exists is not None
    assert "latentcli encode wrote" in told.needed
