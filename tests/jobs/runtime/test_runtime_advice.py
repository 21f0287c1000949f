"""What helps where a stage is the limit: only what can, in one wording for all commands."""

from __future__ import annotations

import pytest

from latentcli.jobs.runtime.advice import HELPS, WORDS, Limit, Setting, advice

CPU, GPU = Setting(gpu=False, cores=4), Setting(gpu=True, cores=4)


def helps(stage: str, setting: Setting = CPU, threads: int = 1) -> str:
    return advice(stage, Limit(threads, setting))


def test_more_workers_only_where_a_core_is_left() -> None:
    assert helps("decode_image", threads=3) == "more --workers or smaller sources"
    assert helps("decode_image", threads=4) == "more CPU cores or smaller sources"
    assert helps("preprocess", threads=9) == "more CPU cores or smaller sources"
    assert helps("encode_image", threads=2) == "more --workers"
    assert helps("encode_image", threads=4) == "more CPU cores"


def test_a_decoder_of_clips_uses_every_core_already() -> None:
    clips = Setting(cores=4, clips=True)
    assert helps("decode_image", clips) == "more CPU cores or smaller sources"


def test_a_gpu_only_where_there_is_none() -> None:
    assert helps("encode") == "a GPU or a smaller model"
    assert helps("encode", GPU) == helps("encode", Setting()) == "a smaller model"
    assert (helps("features"), helps("features", GPU)) == ("a GPU", "")


def test_an_option_of_the_job_comes_last() -> None:
    jpeg = Setting(cores=1, options={"encode_image": "--format jpeg"})
    assert helps("encode_image", jpeg) == "more CPU cores or --format jpeg"
    few = Setting(gpu=False, options={"decode": "fewer --steps"})
    assert helps("decode", few) == "a GPU, a smaller model or fewer --steps"
    assert helps("encode", few) == "a GPU or a smaller model"


@pytest.mark.parametrize("stage", ["metrics", "unheard of"])
def test_where_nothing_is_known_to_help(stage: str) -> None:
    assert helps(stage) == ""


def test_every_stage_with_advice_has_words() -> None:
    assert HELPS.keys() <= WORDS.keys()
