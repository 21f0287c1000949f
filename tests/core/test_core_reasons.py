"""Reasons of failure in groups: what is one input's own is left out, what all have stays."""

from __future__ import annotations

import pytest

from latentcli.core.reasons import EXAMPLES, MOST, Reasons, with_example


def grouped(*rows: tuple[str, str, str]) -> dict[str, int]:
    """Rows of (reason, key, source) in; text and number of their groups out."""
    reasons = Reasons()
    for row in rows:
        reasons.add(*row)
    return reasons.counts()


def of_each(template: str, values: tuple[object, ...]) -> dict[str, int]:
    """The groups of a sentence with each of the values in it."""
    return grouped(*((template.format(v), f"in/{v}", f"/data/in/{v}.png") for v in values))


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        (
            "decode_image: picture is {0}x{0}, {0} pixels; the limit is 4,000 (--max-pixels)",
            (8000, 9000),
            "decode_image: picture is ...x..., ...; the limit is 4,000 (--max-pixels)",
        ),
        (
            "read: member 'in/{}.txt' belongs to no picture",
            ("a", "b c"),
            "read: member ... belongs to no picture",
        ),
        (
            "write: out dir/in/{}.png is there already; choose another -o",
            ("a", "my picture"),
            "write: out ... is there already; choose another -o",
        ),
        ("read: https://host/in/{}.png: 404", ("a", 7), "read: ...: 404"),
        ("decode_image: it begins with {}", ("8a 4f 00", "ff d8 ff e0"), None),
        ("decode_image: cannot identify <BytesIO at {}>", ("0x7fa0", "0x7fb1"), None),
        ("decode_image: text ({!r})", ("hello", "it's"), "decode_image: text (...)"),
        ("decode_image: cut short after {}", ("1 frame", "12 frames"), None),
        ("read: a sample's members must be adjacent", (1, 2), None),
    ],
)
def test_what_is_one_inputs_own_is_left_out(template, values, text):
    expected = text or template.format("...")
    assert of_each(template, values) == {expected: len(values)}


def test_what_all_have_stays_as_it_is():
    assert of_each("decode_image: file is empty (0 bytes)", (1, 2, 3)) == {
        "decode_image: file is empty (0 bytes)": 3
    }
    assert of_each("decode_image: 16-bit 'PNG', {}", (1, 1)) == {"decode_image: 16-bit 'PNG', 1": 2}


def test_a_lone_input_keeps_its_numbers_but_not_its_names():
    why = "decode_image: picture 'in/a' is 8x9"
    assert grouped((why, "in/a", "")) == {"decode_image: picture ... is 8x9": 1}


def test_a_key_that_is_a_word_is_no_name():
    why = "read: the file is not there"
    assert grouped((why, "file", ""), (why, "other", "")) == {why: 2}


def test_other_words_are_other_reasons_and_the_commonest_comes_first():
    odd, common = "read: odd", "read: common"
    rows = [(odd, "a", ""), (common, "b", ""), (common, "c", "")]
    assert list(grouped(*rows).items()) == [(common, 2), (odd, 1)]


def test_a_group_knows_a_few_keys():
    reasons = Reasons()
    for number in range(10):
        reasons.add("read: gone", f"key{number}", "")
    (group,) = reasons.most_common()
    assert group.keys == [f"key{number}" for number in range(EXAMPLES)] and group.count == 10


def test_a_person_reads_the_whole_sentence_of_the_first_input():
    reasons = Reasons()
    for number in (8, 9):
        reasons.add(f"decode_image: picture is {number}x{number}", f"key{number}", "")
    reasons.add("read: member 'in/a' is no picture", "in/a", "")
    examples = reasons.examples()
    assert examples.keys() == reasons.counts().keys()
    assert [with_example(text, examples) for text in reasons.counts()] == [
        "decode_image: picture is 8x8, as in key8",
        "read: member 'in/a' is no picture",
    ]
    assert with_example("read: odd", {}) == "read: odd"


def test_reasons_without_end_count_as_others():
    reasons = Reasons()
    for number in range(MOST + 10):
        word = "".join(chr(ord("a") + int(digit)) for digit in f"{number:05d}")
        reasons.add(f"read: {word}", str(number), "")
    assert len(reasons.groups) == MOST + 1
    assert reasons.counts(1) == {"read: other reasons": 10}
    other = reasons.examples(1)["read: other reasons"]
    assert other == {"key": str(MOST), "error": "read: other reasons"}
