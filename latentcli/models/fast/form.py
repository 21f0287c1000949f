"""Derives from a plain model the same model in the form that machines run fastest.

The plain networks keep the published names and say what is computed; the fast ones compute it with
other operations, equal up to rounding, and are made from loaded weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import nn

from latentcli.models.base import Autoencoder
from latentcli.models.dinac_network import DinacEncoder
from latentcli.models.fast.dinac import FastDinacEncoder
from latentcli.models.fast.fcdm import FastFCDMDecoder, FastFCDMEncoder
from latentcli.models.fcdm_network import FCDMDecoder, FCDMEncoder

FORMS: Mapping[type[nn.Module], Callable[[Any, torch.dtype], nn.Module]] = {
    FCDMEncoder: FastFCDMEncoder,
    FCDMDecoder: FastFCDMDecoder,
    DinacEncoder: FastDinacEncoder,
}
"""Plain network -> what builds its fast form, in a dtype, on the device where its weights are."""


def fast_form(model: Autoencoder) -> Autoencoder:
    """The model with each network that has a fast form in it, in the model's dtype.

    The model itself is not changed, and what has no fast form is shared with it. The result's
    tensors have names of their own, and what is folded into them must not change after: save the
    plain model.
    """
    parts = {
        name: FORMS[type(part)](part, model.dtype)
        for name, part in model.named_children()
        if type(part) in FORMS
    }
    if not parts:
        return model
    fast = copy(model)
    fast._modules = {**model._modules, **parts}
    return fast
