"""Says how many pictures go to a model at once: by their size and the kind of device alone.

Another batch size may round otherwise and is another spec of a store. So nothing that was timed,
and no memory that happens to be free, has a say in it: the same command gives the same bytes.
"""

from __future__ import annotations

from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.inference.engine import Engine

LARGEST = 256
"""Pictures in a batch, however small they are, unless the user says otherwise."""
OWN_SIDE = 1024
"""Pictures at their own size count as having this many pixels a side, and larger ones too: those go
in smaller batches, which have as many pixels together."""
BATCH_PIXELS = 2**20
"""Pixels per picture, on average, that a full batch may have: larger pictures go in fewer."""


def default_batch_size(kind: type[Accelerator], preprocess: PreprocessSpec) -> int:
    """Pictures a batch that a kind of device encodes, where neither user nor store says it."""
    if kind.batch_pixels is None:
        return kind.batch_size
    width, height = counted_size(preprocess)
    return max(1, min(kind.batch_pixels // (width * height), LARGEST))


def counted_size(preprocess: PreprocessSpec) -> tuple[int, int]:
    """(W, H) of the largest pictures that a batch of full size will have."""
    largest = preprocess.buckets.largest if preprocess.buckets is not None else (0, 0)
    width, height = preprocess.size or largest
    if 0 < width * height <= OWN_SIDE**2:
        return width, height
    return OWN_SIDE, OWN_SIDE


def latent_values(engine: Engine) -> int:
    """Values of the latents of a picture of BATCH_PIXELS."""
    spec = engine.model.spec
    return BATCH_PIXELS * spec.channels // spec.downscale**2


def batch_elements(batch_size: int) -> int:
    """Values that a batch of pictures may have."""
    return 3 * batch_size * BATCH_PIXELS
