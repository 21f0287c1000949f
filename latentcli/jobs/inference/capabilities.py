"""Refuses what a model cannot do, in words that name models which can."""

from __future__ import annotations

from latentcli.core.errors import UsageError
from latentcli.core.types import NORMAL_STATES
from latentcli.jobs.inference.engine import Engine
from latentcli.models.presets import no_encoder
from latentcli.models.registry import find_preset


def check_state(state: str | None, engine: Engine) -> None:
    """UsageError where --latents calls the model's own latents by the other name."""
    own = engine.model.spec.state
    if state in NORMAL_STATES and state != own:
        point = engine.model.moments == ("mean",)
        allowed = f"{own} and raw" if point else f"{own}, raw and moments"
        raise UsageError(
            f"--latents is {state!r}, but the latents of {engine.info.name} are {own};"
            f" allowed are {allowed}."
        )


def refuse_decoder(engine: Engine) -> None:
    """UsageError where the model cannot encode, or its weights are a decoder's alone."""
    if engine.model.can_encode:
        return
    info = engine.info
    preset = find_preset(info.name)
    if preset is not None and preset.can_encode:
        raise UsageError(
            f"The weights of {info.name} ({info.weights_path}) hold only a decoder, so they cannot"
            " encode; give the encoder's too, in one folder or file."
        )
    raise no_encoder(info.name, engine.model.spec.space)


def refuse_encoder(engine: Engine) -> None:
    """UsageError where the weights are an encoder's alone."""
    if not engine.model.can_decode:
        raise UsageError(
            f"The weights of {engine.info.name} ({engine.info.weights_path}) hold only an encoder,"
            " so they cannot decode; give the decoder's too, in one folder or file."
        )


def refuse_decoder_preset(model: str) -> None:
    """`refuse_decoder` for a preset, before its weights are looked for."""
    preset = find_preset(model)
    if preset is not None and not preset.can_encode:
        raise no_encoder(preset.name, preset.space)
