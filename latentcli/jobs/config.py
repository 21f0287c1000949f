"""Holds the jobs as frozen dataclasses: what a command line or a job file resolves to.

Importing this loads no torch. A field is an option: it has the option's name, and says its help,
its choices and bounds, and the section of a job file that it stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.core.fields import caption_rule
from latentcli.core.options import like, option
from latentcli.core.types import NORMAL_STATES, STORE_DTYPES
from latentcli.jobs.runtime.failures import allowed_failures
from latentcli.jobs.runtime.stdio import STDIN, STDOUT
from latentcli.jobs.settings import (
    MODEL,
    NO_STORE,
    SOURCES,
    CompileSettings,
    DecodeSettings,
    ImageIntake,
    MemorySettings,
    ModelSettings,
)

BUNDLED_MODEL = "fcdm_nano"
LATENTS = (*NORMAL_STATES, "raw", "moments")
ONE_PROCESS = "A pipe is read and written by one process"


@dataclass(frozen=True, kw_only=True)
class EncodeJob(ModelSettings, CompileSettings, MemorySettings, ImageIntake):
    """Images to a latent store."""

    sources: tuple[str, ...] = like(
        ImageIntake, "sources", help=f"{SOURCES} - is a tar stream on stdin."
    )
    output: str | None = option(
        None,
        "Folder or URL of the store; one that exists is resumed. - writes a tar stream to stdout."
        " Default: <name>.<model>.latents here.",
        section="write",
        metavar="OUT",
        flags=("--output", "-o"),
    )
    dry_run: bool = option(
        False,
        "Say what would be encoded, and how large, and write nothing.",
        flags=("--dry-run",),
    )
    retry: str | None = option(
        None,
        "Which inputs of the store to encode again: those that changed since (default), those that"
        " failed as well, or none.",
        section="read",
        choices=("changed", "failed", "none"),
    )
    whole_shards: bool = option(
        False,
        "Encode the whole shard of an input again, and not the input alone, so that the shard has"
        " the bytes that a new store would have. Default: off.",
        section="read",
    )
    compare: str = option(
        "stat",
        "Which inputs are read to find out whether they changed: those of another size or time"
        " (stat, default), or all of them (digest).",
        section="read",
        choices=("stat", "digest"),
    )
    captions: str | None = option(
        None,
        "What is taken along with pictures: auto (texts, JSON and metadata beside them), none, or"
        " the suffix of the files, or the name of the field, that is the caption. Default: that of"
        " the store that is gone on with; else auto.",
        section="read",
        check=caption_rule,
        metavar="auto|none|NAME",
    )
    allow_pipe: bool = option(
        False,
        "Let sources of the form pipe:COMMAND run a shell, whose output is a tar. Default: off.",
        section="read",
    )
    batch_size: int | None = like(
        ImageIntake,
        "batch_size",
        help="Images, or frames, per batch. Default: that of the store that is gone on with; else"
        " 8 on a CPU, and on a GPU as many as have 2^23 pixels, at most 256.",
    )
    model: str = option(
        BUNDLED_MODEL,
        f"{MODEL} Default: {BUNDLED_MODEL}, the bundled one.",
        section="model",
    )
    devices: str | None = option(
        None,
        "all, a number, or a list such as 0,2: one process for each of these GPUs; with --device"
        " cpu so many processes. Default: one process.",
        section="model",
        metavar="N|LIST",
    )
    engine: str = option(
        "local",
        "local (default), or ray: units go to actors of a Ray cluster, as many as --devices says"
        " (needs latentcli[ray]).",
        section="model",
        choices=("local", "ray"),
    )
    latents: str | None = option(
        None,
        "What is stored: the model's own latents (default; whitened or scaled, as its card has"
        " them), raw ones, or the posterior's moments.",
        section="encode",
        choices=LATENTS,
    )
    sample: int | None = option(
        None,
        "Store a sample of the posterior, drawn with this seed. Default: store the mode.",
        section="encode",
        metavar="SEED",
    )
    flip: str = option(
        "none",
        "both: store the latent of the mirrored picture too, from one image decode. Default: none.",
        section="encode",
        choices=("none", "both"),
    )
    class_token: bool = option(
        False,
        "Store the class token that the model predicts beside each latent, in float32. Default:"
        " off.",
        section="encode",
    )
    self_check: bool = option(
        True,
        "Encode and decode a few inputs before the first shard, and stop if they do not come back"
        " as pictures. Default: on.",
        section="encode",
    )
    store_dtype: str = option(
        "bf16",
        "What latents are stored in: bf16 (default), fp16, or with a scale per channel int8 or fp8;"
        " latentcli budget measures what each costs.",
        section="write",
        choices=STORE_DTYPES,
    )
    shard_format: str = option(
        "safetensors",
        "Of the shards: safetensors (default), or webdataset: tars, with everything else in a"
        " tar's samples passed on as it is.",
        section="write",
        choices=("safetensors", "webdataset"),
        flags=("--format",),
    )
    samples_per_shard: int | None = option(
        None,
        "Inputs per shard. Default: 1000 images or 16 clips; a tar or table always becomes one"
        " shard.",
        section="write",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class SyncJob:
    """A store to what its inputs are today, without encoding."""

    store: str = option(
        "", "Folder or URL of a store.", argument=True, section="write", needed=NO_STORE
    )
    sources: tuple[str, ...] = option(
        (),
        "Where the inputs are: what these do not give is dropped. Default: where they were when the"
        " store was made, and only files that are no longer there are dropped.",
        argument=True,
        section="read",
        metavar="SRC",
    )
    max_drop: str = option(
        "50%",
        "Inputs that may be dropped: a number or a share; where more are gone, nothing is changed."
        " Default: 50%.",
        section="write",
        metavar="N|N%",
        check=lambda text: allowed_failures(text, 0, "--max-drop"),
    )
    dry_run: bool = option(
        False, "Say what would be dropped and renamed, and change nothing.", flags=("--dry-run",)
    )


@dataclass(frozen=True, kw_only=True)
class DecodeJob(DecodeSettings, ModelSettings, CompileSettings, MemorySettings):
    """A latent store, a shard or a file of latents to pictures."""

    store: str = option(
        "",
        "Folder or URL of a store, one of its shards, a safetensors file of latents, a latent of"
        " ComfyUI (.latent), a cache of kohya, musubi-tuner, SimpleTuner, ai-toolkit or"
        " LightningDiT, or - for a tar stream of latents on stdin.",
        needed=NO_STORE,
        argument=True,
        section="read",
    )
    output: str | None = option(
        None,
        "Folder of the pictures or clips; - writes a tar stream to stdout. Default: <store"
        " name>.images here.",
        section="write",
        metavar="DIR",
        flags=("--output", "-o"),
    )
    workers: int | None = option(
        None,
        "Threads that compress and write pictures; at most 4 per CPU core. Default: one per core,"
        " up to 8.",
        section="read",
        least=0,
    )
    on_error: str = like(ImageIntake, "on_error")
    max_bad: str | None = like(ImageIntake, "max_bad")
    batch_size: int | None = like(ImageIntake, "batch_size")
    model: str | None = option(
        None,
        f"{MODEL} Default: the one that the store names.",
        section="model",
    )
    devices: str | None = like(
        EncodeJob,
        "devices",
        help="all, a number, or a list such as 0,2: one process for each of these GPUs; with"
        " --device cpu so many processes. They share the units of a store, or the files of a"
        " cache. Default: one process.",
    )
    force: bool = option(
        False,
        "Decode although the model's latent space is not the store's. Default: refuse.",
        section="model",
    )
    latents: str | None = option(
        None,
        "State of latents in a file that does not say it: raw, or the model's own, whitened or"
        " scaled (default); a file of moments must be a shard.",
        section="encode",
        choices=LATENTS,
    )
    format: str | None = option(
        None,
        "Files: png (default), jpeg or webp; of clips mp4 (default), or a folder of numbered"
        " pictures.",
        section="encode_image",
        choices=("png", "jpeg", "webp", "mp4"),
    )
    quality: int = option(
        95,
        "Quality of JPEG, WebP and MP4, 1 to 100. Default: 95.",
        section="encode_image",
        least=1,
        most=100,
    )
    skip_existing: bool = option(
        False, "Leave pictures and clips that are there already. Default: off.", section="write"
    )


@dataclass(frozen=True, kw_only=True)
class RoundtripJob(DecodeSettings, ModelSettings, CompileSettings, MemorySettings, ImageIntake):
    """Encode and decode in memory, and compare."""

    cached: str | None = option(
        None,
        "Take the latents from this cache of a trainer, a file or a folder, by the pictures' names,"
        " and compare what they decode to. Default: encode.",
        section="read",
        metavar="PATH",
    )
    save: str | None = option(
        None,
        "Write the reconstructions here, one folder per model. Default: write none.",
        section="write",
        metavar="DIR",
    )
    csv: str | None = option(
        None,
        "Write a line of figures per image to this file. Default: no.",
        section="write",
        metavar="FILE",
    )
    report: str | None = option(
        None,
        "Write a page here that shows every image, what came back, the differences and the"
        " latents; open DIR/index.html. Default: none.",
        section="write",
        metavar="DIR",
    )
    single_file: bool = option(
        False,
        "Write the page and its pictures into one file, which --report then names: report.html."
        " Default: a folder.",
        section="write",
    )
    difference_gain: float = option(
        4.0,
        "What the report's pictures of differences are multiplied by. Default: 4.",
        section="write",
        least=1,
        most=100,
        metavar="X",
    )
    models: tuple[str, ...] = option(
        (BUNDLED_MODEL,),
        f"{MODEL} NAME=PATH gives its weights. Repeat to compare several. Default:"
        f" {BUNDLED_MODEL}.",
        section="model",
        key="model",
    )
    baseline: str | None = option(
        None,
        "One more model, that the others are compared with. Default: the first --model.",
        section="model",
    )
    decoders: tuple[str, ...] = option(
        (),
        "Also decode with this model what --model encoded; its latent space must be the same."
        " NAME=PATH gives its weights. Repeat for several. Default: none.",
        section="model",
        metavar="NAME",
        key="decoder",
    )
    metrics: tuple[str, ...] = option(
        ("psnr", "ssim", "ssim_gaussian"),
        "What is measured, repeated or with commas: psnr,ssim,ssim_gaussian (default), ms_ssim;"
        " with latentcli[metrics] also lpips, lpips_vgg and, of the whole set, rfid.",
        section="measure",
        choices=("psnr", "ssim", "ssim_gaussian", "ms_ssim", "lpips", "lpips_vgg", "rfid"),
        metavar="NAME",
        commas=True,
    )
    metric_weights: tuple[str, ...] = option(
        (),
        "NAME=PATH: file of the network of lpips, lpips_vgg or rfid. Default: torch's cache.",
        section="measure",
        metavar="NAME=PATH",
    )


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """Re-check a store: every digest and count, and a few inputs encoded again."""

    store: str = option("", "Folder of a store.", argument=True, section="read", needed=NO_STORE)
    samples: int = option(
        8,
        "Inputs to encode again and compare; 0 checks the files alone. Default: 8.",
        section="verify",
        least=0,
    )
    repair: bool = option(
        False,
        "Take damaged shards back: the encode command, run again, makes them anew. Default: off.",
        section="verify",
    )
    weights: str | None = like(ModelSettings, "weights")
    device: str = like(ModelSettings, "device")


@dataclass(frozen=True, kw_only=True)
class InspectJob:
    """Describe a latent store, or the latents of another tool."""

    store: str = option(
        "",
        "Folder of a store, one of its shards, or the cache of a trainer: a file or a folder.",
        argument=True,
        needed=NO_STORE,
    )
    report: str | None = option(
        None,
        "Write a page with the latents' figures and pictures into this folder; an earlier report"
        " there is replaced.",
        metavar="DIR",
    )
    report_samples: int | None = option(
        None,
        "Samples to read for it, evenly over the store; 0 reads all. Default: 2000, or all where"
        " the store does not hold its own means.",
    )


def with_weights(text: str) -> tuple[str, str | None]:
    """(name, path of the weights or None) of NAME or NAME=PATH; a folder's name may hold a =."""
    name, _, path = (text, "", "") if Path(text).exists() else text.partition("=")
    return name, path or None


def is_piped(job: EncodeJob) -> bool:
    """Whether standard input or output is an end of the job."""
    return STDIN in job.sources or job.output == STDOUT


def check_decode_pipe(job: DecodeJob) -> None:
    """UsageError where several processes are to share a pipe."""
    if job.devices is not None and STDOUT in (job.store, job.output):
        raise UsageError(f"{ONE_PROCESS}; give a store and a folder to use several.")


def check_pipe(job: EncodeJob) -> None:
    """UsageError where a job that is piped asks for what a pipe cannot be."""
    if STDIN in job.sources and job.sources != (STDIN,):
        raise UsageError("- is a tar stream on standard input, and the only source then.")
    if STDIN in job.sources and (job.include or job.exclude or job.limit is not None):
        raise UsageError(
            "--include, --exclude and --limit choose among files; - is one stream. Leave them out."
        )
    if job.devices is not None or job.engine != "local":
        raise UsageError(f"{ONE_PROCESS}; give files to use several.")
    if job.dry_run:
        raise UsageError("A pipe cannot be looked into beforehand: --dry-run needs files.")
    if job.output == STDOUT and job.samples_per_shard is not None:
        raise UsageError("A tar stream has no shards: leave out --samples-per-shard with -o -.")
