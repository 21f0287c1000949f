"""Loads the models that a roundtrip compares, each with the encoder that it shares or owns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import UsageError, WeightsError
from latentcli.core.types import LatentSpec
from latentcli.jobs.config import RoundtripJob, with_weights
from latentcli.jobs.inference.capabilities import refuse_encoder
from latentcli.jobs.inference.engine import Engine, load_engine
from latentcli.models.presets import Preset, no_encoder
from latentcli.models.registry import find_preset

DECODER_ONLY = ("decoder.", "post_quant_conv.")
"""How names of tensors begin that only decoding uses."""


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One model of the comparison, or an encoder and another's decoder."""

    name: str
    """Short enough for a table and a folder."""
    encoder: Engine
    decoder: Engine


def model_words(job: RoundtripJob) -> list[str]:
    """--baseline and every --model, each once, the baseline first."""
    first = [] if job.baseline is None else [job.baseline]
    return list(dict.fromkeys([*first, *job.models]))


def check_models(job: RoundtripJob) -> None:
    """UsageError for what is wrong with the models, before any weights are looked for."""
    words = model_words(job)
    names = [with_weights(text)[0] for text in (*words, *job.decoders)]
    presets = {name: find_preset(name) for name in names}
    shown = [preset.name if preset else Path(name).name for name, preset in presets.items()]
    if len(set(shown)) < len(words) + len(job.decoders):
        raise UsageError(
            "Two --model, --baseline or --decoder have the same name; their figures could not be"
            " told apart. Of several checkpoints of one model, put each into a folder of its own"
            " name with its config.json, and name the folders."
        )
    if len(words) > 1:
        if job.weights is not None:
            raise UsageError(
                "--weights belongs to one model. With several, write --model NAME=PATH for each"
                " that needs it."
            )
        if job.decoders:
            raise UsageError(
                "--decoder decodes what one --model encoded; give one --model and no --baseline"
                " with it."
            )
    if job.cached is not None and job.decoders:
        raise UsageError("--cached takes the place of an encoder; give --model, and no --decoder.")
    if job.decoders:
        check_decoder_presets(*presets.values())
    elif job.cached is None and all(presets.values()):
        known = [preset for preset in presets.values() if preset is not None]
        for preset in known:
            own = space(preset.spec)
            if not any(other.can_encode and space(other.spec) == own for other in known):
                raise no_encoder(preset.name, preset.space)


def check_decoder_presets(encoder: Preset | None, *decoders: Preset | None) -> None:
    """UsageError where the first preset cannot encode what the others decode."""
    if encoder is None:
        return
    if not encoder.can_encode:
        raise no_encoder(encoder.name, encoder.space)
    for preset in decoders:
        if preset is not None:
            check_pair(encoder.name, encoder.spec, preset.name, preset.spec)


def space(spec: LatentSpec) -> str:
    """The full id of a model's own latents."""
    return spec.space_id(spec.state)


def check_pair(encoder: str, gives: LatentSpec, decoder: str, takes: LatentSpec) -> None:
    """UsageError, with both ids named, where a decoder is for another latent space."""
    made, taken = space(gives), space(takes)
    if made != taken:
        raise UsageError(
            f"{encoder} gives latents of {made}, but {decoder} decodes {taken}; --decoder must be"
            " of the same latent space."
        )


def load_compared_models(job: RoundtripJob) -> list[ComparedModel]:
    """All models of the comparison, in order; UsageError where one lacks what it is here for.

    A model that only decodes takes the latents of the first one that encodes into its space. With
    --decoder, a model that only encodes is not compared itself.
    """
    words = model_words(job)
    engines = [load(job, text, job.weights, job.revision) for text in words]
    if job.decoders:
        return paired(job, engines[0])
    for engine in engines:
        refuse_encoder(engine)
    if job.cached is not None:
        return [ComparedModel(name_of(engine), engine, engine) for engine in engines]
    return [
        ComparedModel(name_of(engine), encoder_of(engine, engines[: i + 1], engines), engine)
        for i, engine in enumerate(engines)
    ]


def paired(job: RoundtripJob, encoder: Engine) -> list[ComparedModel]:
    """One encoder with each --decoder, and with its own where it has one."""
    if not encoder.model.can_encode:
        raise no_encoder(name_of(encoder), encoder.model.spec.space)
    own = [ComparedModel(name_of(encoder), encoder, encoder)] if encoder.model.can_decode else []
    others = []
    for text in job.decoders:
        decoder = load_decoder(job, text)
        refuse_encoder(decoder)
        check_pair(name_of(encoder), encoder.model.spec, name_of(decoder), decoder.model.spec)
        name = f"{name_of(encoder)}-{name_of(decoder)}"
        others.append(ComparedModel(name, encoder, decoder))
    return [*own, *others]


def encoder_of(engine: Engine, before: Sequence[Engine], all_of_them: Sequence[Engine]) -> Engine:
    """The engine that encodes for another one: an earlier one with the very same encoder, itself,
    or, for a decoder alone, the first that encodes into its latent space."""
    if not engine.model.can_encode:
        own = space(engine.model.spec)
        for other in all_of_them:
            if other.model.can_encode and space(other.model.spec) == own:
                return other
        raise no_encoder(name_of(engine), engine.model.spec.space)
    return next((other for other in before if same_encoder(other, engine)), engine)


def same_encoder(one: Engine, other: Engine) -> bool:
    """Whether two models give the same latents: equal structure and weights of that half.

    The ids of their latent spaces may differ: those of models without a preset are their names.
    """
    if one is other:
        return True
    if type(one.model) is not type(other.model) or not one.model.can_encode:
        return False
    if encoder_settings(one) != encoder_settings(other):
        return False
    a, b = dict(encoder_tensors(one)), dict(encoder_tensors(other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def encoder_settings(engine: Engine) -> tuple[LatentSpec, dict[str, Any]]:
    """What no tensor tells: the geometry of the latents, and the config but for the decoder's."""
    config = {k: v for k, v in engine.info.config.items() if not k.startswith("decoder")}
    return replace(engine.model.spec, space="any"), config


def encoder_tensors(engine: Engine) -> Iterable[tuple[str, Tensor]]:
    """Name and values of what encoding uses."""
    for name, tensor in engine.model.state_dict().items():
        if not name.startswith(DECODER_ONLY):
            yield name, tensor


def load(
    job: RoundtripJob, text: str, weights: str | None = None, revision: str | None = None
) -> Engine:
    """A model as the job runs it; --weights and --revision are those of --model alone."""
    name, path = with_weights(text)
    return load_engine(
        name,
        weights=path or weights,
        revision=revision,
        device=job.device,
        dtype=job.dtype,
        max_memory=job.most_bytes,
        compile=job.compile,
    )


def load_decoder(job: RoundtripJob, text: str) -> Engine:
    """The model of a --decoder; WeightsError says how such a one gets its weights."""
    try:
        return load(job, text)
    except WeightsError as error:
        name = with_weights(text)[0]
        hint = f"For a decoder, write --decoder {name}=PATH instead of --weights PATH."
        raise WeightsError(f"{error}\n{hint}") from error


def name_of(engine: Engine) -> str:
    """The preset's name, or the last part of a path or id."""
    return engine.info.preset_name or Path(engine.info.name).name


def divisor(compared_models: Sequence[ComparedModel]) -> int:
    """Sides of pictures that suit every model are multiples of this."""
    engines = [engine for c in compared_models for engine in (c.encoder, c.decoder)]
    return math.lcm(*(engine.model.spec.size_divisor for engine in engines))
