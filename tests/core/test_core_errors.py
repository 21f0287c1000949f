"""Exit codes of the expected errors, and their way through other processes."""

from __future__ import annotations

import pickle

import pytest

from latentcli.core import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("LatentCliError", 1),
        ("UsageError", 2),
        ("WeightsError", 1),
        ("StoreError", 1),
        ("SelfCheckError", 1),
        ("TooManyFailures", 3),
        ("Interrupted", 75),
    ],
)
def test_exit_codes(kind, code):
    error = getattr(errors, kind)("what, why, cure")
    assert isinstance(error, errors.LatentCliError)
    assert error.exit_code == code
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == "what, why, cure"


def test_a_sample_error_says_its_stage_in_any_process():
    error = pickle.loads(pickle.dumps(errors.SampleError("decode_image", "cut short")))
    assert (error.stage, error.reason, str(error)) == ("decode_image", "cut short", "cut short")
