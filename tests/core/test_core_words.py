"""Words in sentences."""

from __future__ import annotations

from latentcli.core.words import listed


def test_a_list_ends_in_the_word_that_is_given():
    assert listed(["a", "b"], "or") == "a or b"
    assert listed(["a", "b", "c"], "and") == "a, b and c"
