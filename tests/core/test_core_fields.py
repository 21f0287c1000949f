"""The policies of texts and documents, what wins among them, and members of tars and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.caption_counts import KINDS, CaptionCounts
from latentcli.core.errors import UsageError
from latentcli.core.field_values import (
    MAX_CAPTION,
    MAX_DEPTH,
    MAX_DOCUMENT,
    Refused,
    document_of,
    flaw_of,
    text_of,
)
from latentcli.core.fields import (
    AUTO,
    CaptionRule,
    Gathered,
    caption_rule,
    fields_of_members,
    gather_members,
    is_of_fields,
    members_of_fields,
)
from latentcli.core.types import Member

LONGEST = "é" * (MAX_CAPTION // 2)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b" a cat\n", "a cat"),
        ("猫\r\nund\rHund \t".encode(), "猫\nund\nHund"),
        (b"\xef\xbb\xbfa cat", "a cat"),
        ("ein Kätzchen".encode("utf-16"), "ein Kätzchen"),
        (b"\xfe\xff" + "猫".encode("utf-16-be"), "猫"),
        (LONGEST.encode(), LONGEST),
    ],
)
def test_a_text(data, text):
    assert text_of(data) == text


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", "empty", "empty"),
        (b"\xef\xbb\xbf \n\t", "empty", "empty"),
        ("Kätzchen".encode("latin-1"), "not_utf8", "not UTF-8"),
        ("a cat".encode("utf-16-le"), "not_utf8", "zero bytes"),
        ("a cat".encode("utf-32"), "not_utf8", "not UTF-8"),
        (b"\xff\xfea", "not_utf8", "not UTF-8"),
        (f"{LONGEST}.".encode(), "too_long", "65,536 bytes"),
    ],
)
def test_a_text_that_is_refused(data, kind, reason):
    with pytest.raises(Refused, match=reason) as caught:
        text_of(data)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b'{"a": 1', "broken", "not JSON"),
        (b"", "broken", "not JSON"),
        (b"[" * 100_000, "broken", "not JSON"),
        (b'{"a": "\xe4"}', "not_utf8", "not UTF-8"),
        (b'"%b"' % (b"a" * MAX_DOCUMENT), "too_long", "1,048,576 bytes"),
    ],
)
def test_a_document_that_is_refused(data, kind, reason):
    with pytest.raises(Refused, match=reason) as caught:
        document_of(data)
    assert caught.value.kind == kind


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": [1, {"b": float("nan")}]}, "nan is not a JSON number"),
        (float("-inf"), "-inf is not a JSON number"),
        (nested(MAX_DEPTH + 1), "more than 32 levels deep"),
        ({"a": "\ud83d"}, "half of a UTF-16 surrogate pair"),
        ({"\udc00": 1}, "half of a UTF-16 surrogate pair"),
        ({1: "a"}, "is not text"),
        (b"a", "not a JSON value"),
    ],
)
def test_values_that_are_no_fields(value, reason):
    assert reason in str(flaw_of(value))


def test_values_that_are_fields():
    assert flaw_of({"a": [None, True, 10**30, -0.5, "猫", {}], "b": nested(MAX_DEPTH - 1)}) is None


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        ("auto", AUTO),
        ("none", None),
        ("tags", CaptionRule(("tags",), ("tags",))),
        (".tags", CaptionRule(("tags",), ("tags",))),
        ("jpg.txt", CaptionRule(("jpg.txt",), ("jpg.txt",))),
        ("json", CaptionRule((), ("caption", "text"))),
    ],
)
def test_modes(mode, rule):
    assert caption_rule(mode) == rule


@pytest.mark.parametrize("mode", ["", ".", "a/b", "a b", "\\a", "a\0"])
def test_modes_that_are_no_names(mode):
    with pytest.raises(UsageError, match="--captions is"):
        caption_rule(mode)


def gathered(*documents: object, mode: str = "auto", text: bytes | None = None) -> Gathered:
    """What a text and documents give, in this order."""
    rule = caption_rule(mode)
    assert rule is not None
    found = Gathered(rule)
    if text is not None:
        found.add_text("txt", text)
    for i, document in enumerate(documents):
        found.add_document(f"{i}.json", json.dumps(document).encode())
    return found


def test_what_comes_first_wins():
    found = gathered({"caption": "b", "x": 1}, {"text": "c", "x": 2, "y": 3}, text=b"a")
    assert found.fields == {"caption": "a", "x": 1, "text": "c", "y": 3} and not found.problems
    assert next(iter(found.fields)) == "caption"
    assert gathered({"x": 1}, {"text": "c"}).fields == {"caption": "c", "x": 1, "text": "c"}
    assert gathered("a cat").fields == {"caption": "a cat"}
    assert gathered({"text": "a", "caption": "b"}).caption == "b"


def test_a_text_that_is_refused_gives_way():
    found = gathered({"caption": "b"}, text=b" \n")
    assert found.fields == {"caption": "b"}
    assert found.problems == [("empty", "txt", "it is empty")]
    found = gathered({"caption": ""}, {"caption": "c"})
    assert found.caption == "c" and [p.kind for p in found.problems] == ["empty"]


def test_the_first_name_of_a_document_decides():
    assert gathered({"caption": None, "text": "a"}).fields == {"text": "a"}
    assert gathered({"caption": "", "text": "a"}).fields == {"text": "a"}


def test_a_named_field_is_the_caption():
    found = gathered({"prompt": "a", "caption": "b", "text": "c"}, mode="prompt")
    assert found.fields == {"caption": "a", "prompt": "a", "text": "c"}
    assert gathered({"caption": "b", "text": "c"}, mode="prompt").fields == {"text": "c"}


def test_several_captions():
    found = gathered({"caption": ["a", "b"]})
    assert found.fields == {"caption": "a", "captions": ["a", "b"]}
    found = gathered({"text": ["a", "b"]})
    assert found.fields == {"caption": "a", "text": ["a", "b"]}
    assert [p.reason for p in gathered({"caption": [1]}).problems] == [
        "the caption is 1, expected text"
    ]


@pytest.mark.parametrize("value", [1, True, {}, [], [["a"]], "\ud800"])
def test_a_caption_that_is_no_text(value):
    found = gathered({"caption": value, "x": 1})
    assert found.caption is None and found.others["x"] == 1
    assert {p.kind for p in found.problems} == {"broken"}


def test_a_bad_field_is_refused_alone():
    found = Gathered(AUTO)
    found.add_document("a.json", b'{"caption": "a", "score": NaN, "x": 1e999, "y": 1}')
    assert found.fields == {"caption": "a", "y": 1}
    assert [p.reason for p in found.problems] == [
        "'score': nan is not a JSON number",
        "'x': inf is not a JSON number",
    ]


def test_fields_have_a_limit_together():
    half = "a" * (MAX_DOCUMENT // 2)
    found = gathered({"a": half}, {"b": half, "c": 1})
    assert found.fields == {"a": half, "c": 1}
    assert [p.kind for p in found.problems] == ["too_long"]
    assert fields_of_members(members_of_fields(found.fields)) == found.fields


@pytest.mark.parametrize("document", [b"[1]", b"3", b"null", b"{"])
def test_a_document_that_is_no_object(document):
    found = Gathered(AUTO)
    found.add_document("a.json", document)
    assert found.fields == {} and [p.kind for p in found.problems] == ["broken"]


def test_members_of_a_tar():
    members = [
        Member("json", b'{"caption": "j", "url": "u", "cls": 3}'),
        Member("jpg", b"\xff\xd8"),
        Member("TXT", b"t\n"),
        Member("caption", b"c"),
        Member("cls", b"7\n"),
    ]
    assert fields_of_members(members) == {"caption": "t", "url": "u", "cls": 3}
    assert fields_of_members(members[1:2]) == {}
    assert fields_of_members([Member("cls", b"7\n")]) == {"cls": 7}
    assert fields_of_members([Member("cls", b"cat")]) == {"cls": "cat"}
    tags = CaptionRule(("tags",), ("tags",))
    assert fields_of_members([*members, Member("tags", b"x, y")], tags)["caption"] == "x, y"
    broken = gather_members([Member("txt", b"\xe4"), Member("cls", b"")], AUTO)
    assert [(p.kind, p.where) for p in broken.problems] == [("not_utf8", "txt"), ("empty", "cls")]


def test_which_members_are_looked_at():
    wanted = ("jpg", "TXT", "caption", "json", "cls", "seg.png", "tags")
    assert [name for name in wanted if is_of_fields(name)] == ["TXT", "caption", "json", "cls"]
    assert is_of_fields("tags", CaptionRule(("tags",), ("tags",)))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["text", "caption", "prompt", "cls", "captions", "key"]) | st.text()


@given(st.dictionaries(names, values, max_size=6), st.none() | st.text())
def test_members_are_fields_again(document, text):
    fields = gathered(document, text=None if text is None else text.encode()).fields
    members = members_of_fields(fields)
    assert fields_of_members(members) == fields
    assert members_of_fields(dict(reversed(fields.items()))) == members


def test_members_are_few_and_equal():
    assert members_of_fields({}) == ()
    assert members_of_fields({"text": "a"}) == (Member("json", b'{"caption":null,"text":"a"}'),)
    assert fields_of_members(members_of_fields({"text": "a"})) == {"text": "a"}
    assert members_of_fields({"caption": "猫"}) == (Member("txt", "猫".encode()),)
    assert members_of_fields({"b": "ä", "caption": "c", "a": [1, 2]}) == (
        Member("txt", b"c"),
        Member("json", '{"a":[1,2],"b":"ä"}'.encode()),
    )
    with pytest.raises(ValueError, match="nan is not a JSON number"):
        members_of_fields({"a": float("nan")})


def test_counts():
    counts = CaptionCounts()
    counts.add("a", gathered(text=b"a"))
    counts.add("b", None)
    counts.add("c", gathered())
    counts.add("d", gathered(text=b""))
    counts.add("e", gathered({"caption": "e"}, text=b"\xe4"))
    other = CaptionCounts()
    for name in "fghi":
        other.add(name, None)
    counts.merge(other)
    found = counts.to_json()
    assert {kind: found[kind] for kind in KINDS if found[kind]} == {
        "with_caption": 2,
        "missing": 6,
        "empty": 1,
        "not_utf8": 1,
    }
    assert found["examples"] == {
        "missing": ["b", "c", "f"],
        "empty": ["d: txt: it is empty"],
        "not_utf8": ["e: txt: it is not UTF-8 text"],
    }
