"""Defines the errors that a user can act on, each with the exit code that it gives the command."""


class LatentCliError(Exception):
    """Base of all expected errors: one or two plain sentences, shown without a traceback."""

    exit_code = 1


class UsageError(LatentCliError):
    """The command line, a job file or a Python call asks for something that cannot be."""

    exit_code = 2


class SampleError(LatentCliError):
    """One input cannot be used. It becomes a failure row; the job goes on.

    `stage` is the stage that refused it: read, filter, decode_image, preprocess, encode or
    encode_image.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stage, self.reason)


class Filtered(SampleError):
    """One input that a filter of the job refuses. It becomes a row, and is no failure."""

    def __init__(self, reason: str) -> None:
        super().__init__("filter", reason)

    def __reduce__(self) -> tuple[type, tuple[str]]:  # type: ignore[override]
        return type(self), (self.reason,)


class WeightsError(LatentCliError):
    """A checkpoint was not found, cannot be read, or does not fit the network."""


class NoSuchWeights(WeightsError):
    """There is nothing at the path of a checkpoint that was named."""

    exit_code = 2


class NoWeightsFile(WeightsError):
    """The path of a checkpoint that was named is that of another kind of file."""

    exit_code = 2


class StoreError(LatentCliError):
    """A latent store or shard is missing, damaged, or made with another spec."""


class NoSuchStore(StoreError):
    """There is nothing at the path of a store, or of other latents, that was named."""

    exit_code = 2


class NoPlaceForStore(StoreError):
    """No store can be made at the path that was named."""

    exit_code = 2


class IncompleteStore(StoreError):
    """A store has damaged or missing units; what is there was read, if that was allowed."""

    exit_code = 3


class HubError(LatentCliError):
    """The Hugging Face Hub refuses what was asked of it, or cannot be reached."""


class SelfCheckError(LatentCliError):
    """The first real inputs do not come back as pictures: the job would write a wrong cache."""


class TooManyFailures(LatentCliError):
    """More inputs failed than the job was allowed to lose."""

    exit_code = 3


class LeaderFailed(LatentCliError):
    """The first process of a job failed, and says why: the others end with it."""


class Interrupted(LatentCliError):
    """A signal ended the job early; the same command finishes the rest."""

    exit_code = 75
