"""Translates tensor names of KL checkpoints to diffusers' present names, one to one.

Three spellings are in use: diffusers', its older one of the attention, and the original one of
latent diffusion and FLUX. The last counts the decoder's levels from the picture inwards (up.0 comes
last), has attention weights as 1x1 convolutions, and may hold one half without its prefix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

BOTH = "both"
HALVES = ("encoder", "decoder")
PARTS = (BOTH, *HALVES)

_HALF = r"^((?:en|de)coder)"
_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
_MIDDLE = {"block_1": "resnets.0", "block_2": "resnets.1", "attn_1": "attentions.0"}
# Applied in this order: later patterns see the outcome of earlier ones.
_RULES = [
    (re.compile(_HALF + r"\.((?:post_)?quant_conv)\."), r"\2."),
    (re.compile(_HALF + r"\.norm_out\."), r"\1.conv_norm_out."),
    (re.compile(r"^encoder\.down\.(\d+)\."), r"encoder.down_blocks.\1."),
    (re.compile(_HALF + r"\.(down|up)_blocks\.(\d+)\.block\."), r"\1.\2_blocks.\3.resnets."),
    (re.compile(r"(\.(?:down|up)sample)\.conv\."), r"\1rs.0.conv."),
    (re.compile(r"\.nin_shortcut\."), r".conv_shortcut."),
]
_LEVEL = re.compile(r"^decoder\.up\.(\d+)\.")
_MID = re.compile(_HALF + rf"\.mid\.({'|'.join(_MIDDLE)})\.")
_ATTEND = re.compile(_HALF + rf"(\.mid_block\.attentions\.\d+)\.({'|'.join(_ATTENTION)})\.")


def diffusers_name(name: str, levels: int) -> str:
    """Present diffusers name of a tensor, whatever its spelling; unknown names come back unchanged.

    `levels` is the decoder's number of resolutions.
    """
    name = _LEVEL.sub(lambda m: _level(m, levels), name)
    for pattern, new in _RULES:
        name = pattern.sub(new, name)
    name = _MID.sub(lambda m: f"{m[1]}.mid_block.{_MIDDLE[m[2]]}.", name)
    return _ATTEND.sub(lambda m: f"{m[1]}{m[2]}.{_ATTENTION[m[3]]}.", name)


def present_names(names: Collection[str], levels: int) -> dict[str, str]:
    """Each name's present diffusers name.

    Of names that would come to the same, each keeps its own, so that none is lost and the strict
    check lists them.
    """
    prefix = _missing_prefix(names)
    renamed = {
        name: diffusers_name(name if name.startswith("bn.") else prefix + name, levels)
        for name in names
    }
    count = Counter(renamed.values())
    return {old: new if count[new] == 1 else old for old, new in renamed.items()}


def parts_of(names: Collection[str]) -> str:
    """Which of PARTS a checkpoint holds, by its tensors' names in any spelling."""
    bare = _missing_prefix(names).rstrip(".")
    held = [half for half in HALVES if bare == half or _any(names, f"{half}.")]
    return held[0] if len(held) == 1 else BOTH


def _missing_prefix(names: Collection[str]) -> str:
    """'encoder.' or 'decoder.' where the names are those of one half without its prefix."""
    if _any(names, "encoder.") or _any(names, "decoder."):
        return ""
    down, up = _any(names, "down.", "down_blocks."), _any(names, "up.", "up_blocks.")
    if down == up:
        return ""
    return "encoder." if down else "decoder."


def _any(names: Collection[str], *starts: str) -> bool:
    return any(name.startswith(starts) for name in names)


def _level(match: re.Match[str], levels: int) -> str:
    index = levels - 1 - int(match[1])
    return match[0] if index < 0 else f"decoder.up_blocks.{index}."
