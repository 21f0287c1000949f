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
from latentcli.jobs.runtime.given_names import (
    check_decoded,
    check_encoder,
    check_model,
    check_source,
)
from latentcli.jobs.runtime.stdio import STDIN, STDOUT
from latentcli.jobs.settings.follow import FollowSettings
from latentcli.jobs.settings.images import SOURCES, ImageIntake
from latentcli.jobs.settings.model import (
    MODEL,
    CompileSettings,
    DecodeSettings,
    MemorySettings,
    ModelSettings,
    model_option,
)
from latentcli.jobs.settings.store import NO_STORE, store_argument
from latentcli.models.presets import preset_names

BUNDLED_MODEL = "fcdm_nano"
LATENTS = (*NORMAL_STATES, "raw", "moments")
ONE_PROCESS = "A pipe is read and written by one process"


@dataclass(frozen=True, kw_only=True)
class EncodeJob(FollowSettings, ModelSettings, CompileSettings, MemorySettings, ImageIntake):
    """Images to a latent store."""

    sources: tuple[str, ...] = like(
        ImageIntake, "sources", help=f"{SOURCES} - is a tar stream on stdin."
    )
    output: str | None = option(
        None,
        "Folder or URL of the store. One that exists is resumed. - writes a tar stream to stdout."
        " Default: <name>.<model>.latents here.",
        section="write",
        daily=True,
        metavar="OUT",
        flags=("--output", "-o"),
    )
    dry_run: bool = option(
        False,
        "Show what would be encoded and how large it would be; write nothing.",
        panel="write",
        daily=True,
        flags=("--dry-run",),
    )
    retry: str | None = option(
        None,
        "Which inputs of the store to encode again: changed (default: those that changed since"
        " they were encoded), failed (changed and failed ones), or none.",
        section="read",
        panel="resume",
        choices=("changed", "failed", "none"),
    )
    whole_shards: bool = option(
        False,
        "Encode the whole shard of a changed input again, not only that input, so that the shard"
        " gets the bytes that a new store would have. Default: off.",
        section="read",
        panel="resume",
    )
    compare: str = option(
        "stat",
        "How changed inputs are found: stat (default) reads only those with another size or time;"
        " digest reads all of them.",
        section="read",
        panel="resume",
        choices=("stat", "digest"),
    )
    captions: str | None = option(
        None,
        "Captions to store: auto, none, or the file suffix or field that is the caption. auto takes"
        " texts, JSON and metadata beside the images. Default: as in the store, else auto.",
        section="read",
        daily=True,
        check=caption_rule,
        metavar="NAME",
        offers=lambda: ("auto", "none"),
    )
    allow_pipe: bool = option(
        False,
        "Let sources of the form pipe:COMMAND run a shell command that writes a tar. Default: off.",
        section="read",
        panel="fields",
    )
    decode_on: str | None = option(
        None,
        "gpu: JPEG files are decoded and resized on the model's GPU, if NVIDIA made it (needs"
        " latentcli[gpu-jpeg]); loader processes only check them. Others are decoded on the CPU."
        " Default: as in the store, else cpu.",
        section="decode_image",
        choices=("cpu", "gpu"),
    )
    batch_size: int | None = like(
        ImageIntake,
        "batch_size",
        help="Images, or frames, per batch. Default: as in the store, else 8 on a CPU, and on a"
        " GPU as many as have 2^23 pixels together, at most 256.",
    )
    model: str = model_option(
        BUNDLED_MODEL,
        f"{MODEL} The bundled one is for trying the tool. Default: {BUNDLED_MODEL}.",
        exists=check_encoder,
    )
    devices: str | None = option(
        None,
        "One process per GPU: all, a number, or a list like 0,2. With --device cpu: the number of"
        " processes. Default: one.",
        section="model",
        panel="batch",
        daily=True,
        metavar="N|LIST",
        offers=lambda: ("all",),
    )
    engine: str = option(
        "local",
        "What runs the job: local (default), or ray: actors of a Ray cluster, as many as --devices"
        " says. ray needs latentcli[ray].",
        section="model",
        panel="batch",
        choices=("local", "ray"),
    )
    latents: str | None = option(
        None,
        "Which latents to store: the model's own (default; whitened or scaled, as its card has"
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
        "both: also store the latent of the mirrored image, without reading the file twice."
        " Default: none.",
        section="encode",
        choices=("none", "both"),
    )
    class_token: bool = option(
        False,
        "Also store the class token that the model predicts for each latent, in float32. Default:"
        " off.",
        section="encode",
    )
    self_check: bool = option(
        True,
        "Encode and decode a few inputs before the first shard, and stop if the images that come"
        " back are wrong. Default: on.",
        section="encode",
        panel="trouble",
    )
    store_dtype: str = option(
        "bf16",
        "Data type of stored latents: bf16 (default), fp16, int8 or fp8. int8 and fp8 have a scale"
        " per channel; latentcli budget measures what each costs.",
        section="write",
        daily=True,
        choices=STORE_DTYPES,
        metavar="DTYPE",
    )
    shard_format: str = option(
        "safetensors",
        "Format of shards: safetensors (default) or webdataset. webdataset shards are tars that"
        " also keep the other members of source samples.",
        section="write",
        daily=True,
        choices=("safetensors", "webdataset"),
        flags=("--format",),
        metavar="FORMAT",
    )
    samples_per_shard: int | None = option(
        None,
        "Inputs per shard. A tar or table always becomes one shard. Default: 1000 images or 16"
        " clips.",
        section="write",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class SyncJob:
    """A store to what its inputs are today, without encoding."""

    store: str = store_argument("Folder or URL of a store.", section="write")
    sources: tuple[str, ...] = option(
        (),
        "Where the inputs are now; inputs that are not there are dropped. Default: where they"
        " were when the store was made; then only inputs whose files are gone are dropped.",
        argument=True,
        section="read",
        metavar="SRC",
        exists=check_source,
    )
    max_drop: str = option(
        "50%",
        "How many inputs may be dropped: a number or a share. When more are gone, nothing is"
        " changed. Default: 50%.",
        section="write",
        panel="trouble",
        metavar="N|N%",
        check=lambda text: allowed_failures(text, 0, "--max-drop"),
    )
    dry_run: bool = option(
        False,
        "Show what would be dropped and renamed; change nothing.",
        panel="write",
        flags=("--dry-run",),
    )


@dataclass(frozen=True, kw_only=True)
class DecodeJob(FollowSettings, DecodeSettings, ModelSettings, CompileSettings, MemorySettings):
    """A latent store, a shard or a file of latents to pictures."""

    store: str = option(
        "",
        "Folder or URL of a store, one of its shards, a safetensors file of latents, the cache of a"
        " trainer, or - for a tar stream of latents on stdin. Caches are those of kohya,"
        " musubi-tuner, SimpleTuner, ai-toolkit and LightningDiT, and a .latent of ComfyUI.",
        needed=NO_STORE,
        argument=True,
        section="read",
        exists=check_decoded,
    )
    output: str | None = option(
        None,
        "Folder of the images or clips; - writes a tar stream to stdout. Default: <store"
        " name>.images here.",
        section="write",
        daily=True,
        metavar="DIR",
        flags=("--output", "-o"),
    )
    workers: int | None = option(
        None,
        "Threads that compress and write images. At most 4 per CPU core. Default: one per core, up"
        " to 8.",
        section="read",
        panel="batch",
        daily=True,
        least=0,
    )
    on_error: str = like(ImageIntake, "on_error")
    max_bad: str | None = like(ImageIntake, "max_bad")
    batch_size: int | None = like(ImageIntake, "batch_size")
    model: str | None = model_option(None, f"{MODEL} Default: the one that the store names.")
    devices: str | None = like(
        EncodeJob,
        "devices",
        help="One process per GPU: all, a number, or a list like 0,2. With --device cpu: the"
        " number of processes. They share the units of a store, or the files of a cache."
        " Default: one.",
    )
    force: bool = option(
        False,
        "Decode even if the latent space of the model is not that of the store. Default: refuse.",
        section="model",
    )
    latents: str | None = option(
        None,
        "State of the latents in a file that does not say it: raw, or the model's own, whitened"
        " or scaled (default). A file of moments must be a shard.",
        section="encode",
        choices=LATENTS,
    )
    format: str | None = option(
        None,
        "Format of files: png (default), jpeg or webp; of clips mp4 (default), or a folder of"
        " numbered images.",
        section="encode_image",
        panel="write",
        daily=True,
        choices=("png", "jpeg", "webp", "mp4"),
    )
    quality: int = option(
        95,
        "Quality of JPEG, WebP and MP4, 1 to 100. Default: 95.",
        section="encode_image",
        panel="write",
        daily=True,
        least=1,
        most=100,
    )
    skip_existing: bool = option(
        False,
        "Keep images and clips that are there already. Default: off.",
        section="write",
        daily=True,
    )


@dataclass(frozen=True, kw_only=True)
class RoundtripJob(
    FollowSettings, DecodeSettings, ModelSettings, CompileSettings, MemorySettings, ImageIntake
):
    """Encode and decode in memory, and compare."""

    cached: str | None = option(
        None,
        "Do not encode: take the latents from this cache of a trainer, a file or a folder, by the"
        " images' names. Default: encode.",
        section="read",
        panel="encode",
        metavar="PATH",
    )
    save: str | None = option(
        None,
        "Write the reconstructions here as PNG, one folder per model. Default: write none.",
        section="write",
        daily=True,
        metavar="DIR",
    )
    csv: str | None = option(
        None,
        "Write one line of figures per image to this file. Default: none.",
        section="write",
        daily=True,
        metavar="FILE",
    )
    report: str | None = option(
        None,
        "Write an HTML report of every image, its reconstruction, the difference and the latents."
        " Open DIR/index.html. Default: none.",
        section="write",
        daily=True,
        metavar="DIR",
    )
    single_file: bool = option(
        False,
        "Write the page and its pictures into one file, which --report then names: report.html."
        " Default: off, a folder.",
        section="write",
    )
    difference_gain: float = option(
        4.0,
        "Factor by which differences are enlarged in the report. Default: 4.",
        section="write",
        least=1,
        most=100,
        metavar="X",
    )
    models: tuple[str, ...] = model_option(
        (BUNDLED_MODEL,),
        f"{MODEL} NAME=PATH gives its weights. Repeat to compare several. Default:"
        f" {BUNDLED_MODEL}.",
    )
    baseline: str | None = option(
        None,
        "One more model, that the others are compared with. Default: the first --model.",
        section="model",
        daily=True,
        metavar="MODEL",
        exists=check_model,
        offers=preset_names,
    )
    decoders: tuple[str, ...] = option(
        (),
        "Also decode with this model what --model encoded; both need the same latent space."
        " NAME=PATH gives its weights. Repeat for several. Default: none.",
        section="model",
        metavar="MODEL",
        key="decoder",
        exists=check_model,
        offers=preset_names,
    )
    metrics: tuple[str, ...] = option(
        ("psnr", "ssim", "ssim_gaussian"),
        "What to measure: psnr,ssim,ssim_gaussian (default), ms_ssim, lpips, lpips_vgg, rfid. The"
        " last three need latentcli[metrics]; rfid is of the whole set. Repeat it, or use commas.",
        section="measure",
        daily=True,
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
        raise UsageError("A pipe cannot be read beforehand: --dry-run needs files.")
    if job.output == STDOUT and job.samples_per_shard is not None:
        raise UsageError("A tar stream has no shards: leave out --samples-per-shard with -o -.")
