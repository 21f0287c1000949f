"""Checks which stage limits a job, and the advice in words, for how busy the stages were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.jobs.runtime.advice import Setting
from latentcli.jobs.runtime.bottleneck import Interval, Reading, ThreadGroup, thread_groups

SPAN = 10.0
IN_TURN = (ThreadGroup(("read", "decode")), ThreadGroup(("encode_image", "write"), 4))


def window(
    workers: int = 2,
    threads: dict[str, int] | None = None,
    groups: tuple[ThreadGroup, ...] = (),
    span: float = SPAN,
    setting: Setting | None = None,
    **seconds: float,
) -> Interval:
    """Stages with these seconds and 50 items each in `span` seconds, after 7 of each before."""
    found = thread_groups(seconds, workers, threads or {}, groups)
    before = Reading(100.0, dict.fromkeys(seconds, (7.0, 7)))
    now = Reading(100.0 + span, {stage: (7.0 + s, 57) for stage, s in seconds.items()})
    return Interval(before, now, found, setting or Setting(cores=16))


SENTENCES = [
    (
        window(read=9, decode_image=16, preprocess=3, encode=3.9, write=1),
        "The slowest stage is decode_image: 1.9 of 2 workers busy; the model is idle 61%;"
        " more --workers or smaller sources would help",
    ),
    (
        window(read=1, decode_image=3, preprocess=16, encode=3.9, setting=Setting(False, 2)),
        "The slowest stage is preprocess: 1.9 of 2 workers busy; the model is idle 61%;"
        " more CPU cores or smaller sources would help",
    ),
    (
        window(4, read=39, decode_image=2, preprocess=1, encode=2),
        "The slowest stage is read: 3.9 of 4 workers busy; the model is idle 80%;"
        " faster storage would help",
    ),
    (
        window(1, decode_image=8, preprocess=2, encode=5),
        "The slowest stage is decode_image: 1.0 of 1 worker busy; the model is idle 50%;"
        " more --workers or smaller sources would help",
    ),
    (
        window(decode_image=8, preprocess=3, encode=9.3, setting=Setting(False, 4)),
        "The slowest stage is encode: the model is busy 93% of the time;"
        " a GPU or a smaller model would help",
    ),
    (
        window(decode_image=8, encode=9.3, setting=Setting(True, 4)),
        "The slowest stage is encode: the model is busy 93% of the time; a smaller model would"
        " help",
    ),
    (
        window(decode_image=8, encode=9.3),
        "The slowest stage is encode: the model is busy 93% of the time; a smaller model would"
        " help",
    ),
    (
        window(decode_image=8, encode=4, write=9),
        "The slowest stage is write: busy 90% of the time; the model is idle 60%;"
        " faster storage would help",
    ),
    (
        window(threads={"read": 1}, read=9.7, decode_image=8, preprocess=3, encode=5),
        "The slowest stage is read: busy 97% of the time; the model is idle 50%; faster storage"
        " would help",
    ),
    (
        window(threads={"read": 1}, read=5, decode_image=15, preprocess=5, encode=5),
        "The slowest stage is decode_image: 2.0 of 2 workers busy; the model is idle 50%;"
        " more --workers or smaller sources would help",
    ),
    (
        window(0, read=1, decode_image=5, preprocess=1, encode=3),
        "The slowest stage is decode_image: it takes turns with the model, which is idle 70%;"
        " more --workers or smaller sources would help",
    ),
    (
        window(0, read=1, decode_image=2, preprocess=1, encode=6, setting=Setting(False, 2)),
        "The slowest stage is encode: the model is busy 60% of the time and takes turns with"
        " decode_image; a GPU or a smaller model would help",
    ),
    (
        window(4, decode_image=8, encode=3, decode=5, metrics=1.8, setting=Setting(False, 4)),
        "The slowest stage is decode: the model is busy 80% of the time and takes turns with"
        " metrics; a GPU or a smaller model would help",
    ),
    (
        window(4, decode_image=8, encode=1, decode=2, metrics=6.5),
        "The slowest stage is metrics: it takes turns with the model, which is idle 70%",
    ),
    (
        window(groups=IN_TURN, read=0.5, decode=4, encode_image=35, write=3),
        "The slowest stage is encode_image: 3.8 of 4 threads busy; the model is idle 60%;"
        " more --workers would help",
    ),
    (
        window(groups=IN_TURN, read=7, decode=2.5, encode_image=5, write=3),
        "The slowest stage is read: it takes turns with the model, which is idle 75%;"
        " faster storage would help",
    ),
    (
        window(1, decode_image=7, preprocess=2.5, encode=4, setting=Setting(True, 4, clips=True)),
        "The slowest stage is decode_image: busy 95% of the time; the model is idle 60%;"
        " more CPU cores or smaller sources would help",
    ),
    (
        window(1, decode_image=7, preprocess=2.5),
        "The slowest stage is decode_image: 0.9 of 1 worker busy;"
        " more --workers or smaller sources would help",
    ),
]


@pytest.mark.parametrize(("seen", "sentence"), SENTENCES, ids=lambda v: str(v)[:24])
def test_the_limit_in_words(seen: Interval, sentence: str) -> None:
    verdict = seen.verdict()
    assert verdict is not None and verdict.sentence == sentence


@pytest.mark.parametrize(
    "seen",
    [
        window(),
        window(read=1, decode_image=12, preprocess=3, encode=8.4, write=8.4),
        window(span=1.9, encode=1.9),
        window(span=0.0, encode=1.0),
        window(decode_image=15, preprocess=11, encode=5),
        window(threads={"encode_image": 1}, encode_image=31, decode=6),
    ],
    ids=["nothing", "nobody", "too short", "no time", "from a queue", "more than was said"],
)
def test_where_nothing_can_be_said(seen: Interval) -> None:
    assert seen.verdict() is None


def test_the_verdict_in_figures() -> None:
    verdict = window(decode_image=16, preprocess=3, encode=3.9).verdict()
    assert verdict is not None
    assert (verdict.stage, verdict.of) == ("decode_image", 2)
    assert verdict.busy == pytest.approx(1.9) and verdict.idle == pytest.approx(0.61)


def test_a_model_that_is_hardly_ever_idle_is_the_limit() -> None:
    verdict = window(decode_image=20, encode=8.7, write=9).verdict()
    assert verdict is not None and verdict.stage == "encode"


def test_what_a_queue_held_makes_nobody_fuller_than_full() -> None:
    """Workers' seconds are counted when the work is taken, so they can be more than there are."""
    verdict = window(decode_image=21, encode=4, write=10).verdict()
    assert verdict is not None and (verdict.stage, verdict.busy) == ("write", 1.0)
    verdict = window(decode_image=21, encode=4, write=9).verdict()
    assert verdict is not None and (verdict.stage, verdict.busy) == ("decode_image", 2.0)


def test_views() -> None:
    read, decode_image, encode = window(2, read=2, decode_image=30, encode=4).views()
    assert (read.name, read.items, read.rate, read.busy, read.threads) == ("read", 57, 5.0, 0.2, 2)
    assert (read.share, decode_image.share, encode.share) == (0.1, 1.0, 0.4)
    assert (decode_image.busy, encode.threads) == (2, 1)


def test_a_stage_that_began_in_the_window() -> None:
    seen = Interval(Reading(0.0, {}), Reading(4.0, {"write": (1.0, 8)}))
    assert [(v.rate, v.busy, v.threads) for v in seen.views()] == [(2.0, 0.25, 1)]


STAGES = st.sampled_from(
    ["read", "decode_image", "preprocess", "encode", "decode", "metrics", "encode_image", "write"]
)


@given(
    st.dictionaries(STAGES, st.floats(0, 100)),
    st.integers(0, 64),
    st.dictionaries(STAGES, st.integers(1, 8), max_size=2),
    st.sampled_from([(), IN_TURN]),
)
def test_every_stage_is_done_by_somebody_and_figures_stay_in_range(
    seconds, workers, threads, groups
):
    seen = window(workers, threads, groups, **seconds)
    done = [stage for group in seen.groups for stage in group.stages]
    assert sorted(done) == sorted(seconds)
    assert all(0 <= view.busy <= view.threads and 0 <= view.share <= 1 for view in seen.views())
    verdict = seen.verdict()
    if verdict is not None:
        assert verdict.stage in seconds and 0.85 * verdict.of <= verdict.busy <= verdict.of
        assert verdict.idle is None or 0 <= verdict.idle <= 1
        assert verdict.sentence.endswith(" would help") is bool(verdict.advice)
