from __future__ import annotations

import json
import math

import pytest

from latentcli.core.json_values import finite, rounded_value


def test_json_has_no_nan() -> None:
    document = finite({"a": [math.nan, 1.5, (math.inf,)], 1: True, "b": "NaN"})
    assert document == {"a": [None, 1.5, [None]], "1": True, "b": "NaN"}
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(1.23456, 1.235), (-0.0004, -0.0), (None, None), (math.nan, None), (-math.inf, None)],
)
def test_figures_are_rounded(value: float | None, wanted: float | None) -> None:
    assert rounded_value(value, 3) == wanted
