"""Results that are made once, and how many of them are kept."""

from __future__ import annotations

from latentcli.models.fast.kept import MOST, kept


def test_a_result_is_made_once_for_each_key():
    results, made = {}, []
    for key in (1, 2, 1, 2):
        assert kept(results, key, lambda key=key: made.append(key) or [key]) == [key]
    assert made == [1, 2]


def test_no_more_than_a_few_are_kept():
    results = {}
    for key in range(3 * MOST):
        assert kept(results, key, lambda key=key: -key) == -key
        assert len(results) <= MOST
