"""The jobs as frozen dataclasses: what a command line or a job file resolves to.

Importing this loads no torch. Every field has the name of its option, so `--batch-size` is
`batch_size`, and SECTIONS says in which section of a job file it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.core.types import NORMAL_STATES
from latentcli.jobs.runtime.stdio import STDIN, STDOUT

BUNDLED_MODEL = "fcdm_nano"

SECTIONS: dict[str, tuple[str, ...]] = {
    "read": (
        *("sources", "store", "media", "workers", "on_error", "max_bad", "retry"),
        *("compare", "time_limit", "allow_pipe"),
    ),
    "decode_image": ("alpha", "max_pixels", "stride", "frames"),
    "preprocess": (
        *("size", "resize", "filter"),
        *("area", "bucket_rule", "bucket_step", "bucket_min", "bucket_max"),
        *("no_upscale", "buckets"),
    ),
    "batch": ("batch_size",),
    "model": (
        *("model", "baseline", "decoder", "weights", "revision", "device", "dtype", "force"),
        *("devices", "engine"),
    ),
    "encode": ("latents", "sample", "flip", "class_token", "self_check"),
    "decode": ("steps", "sampler", "schedule", "pdg", "pdg_strength", "seed", "num_frames"),
    "encode_image": ("format", "quality"),
    "write": (
        *("output", "shard_format", "samples_per_shard", "save", "skip_existing"),
        *("csv", "report", "difference_gain"),
    ),
    "measure": ("metrics", "metric_weights"),
    "bench": (
        *("op", "resolution", "batch", "preset_table", "warmup", "repeats", "seconds"),
        *("threads", "random_weights", "compile", "chart", "stages"),
    ),
    "verify": ("samples", "repair"),
}
"""Sections of a job file and the fields that stand in each: the stages, and what only roundtrip,
bench and verify have."""

CHOICES: dict[str, tuple[str, ...]] = {
    "latents": (*NORMAL_STATES, "raw", "moments"),
    "resize": ("crop", "none", "bucket"),
    "bucket_rule": ("area", "kohya", "musubi"),
    "flip": ("none", "both"),
    "shard_format": ("safetensors", "webdataset"),
    "compare": ("stat", "digest"),
    "engine": ("local", "ray"),
    "filter": ("lanczos", "bicubic", "bilinear", "box"),
    "alpha": ("white", "black", "grey", "drop"),
    "dtype": ("auto", "bf16", "fp32"),
    "on_error": ("skip", "stop"),
    "retry": ("failed", "changed"),
    "sampler": ("ddim", "dpmpp_2m"),
    "schedule": ("linear", "cosine"),
    "format": ("png", "jpeg", "webp", "mp4"),
    "media": ("auto", "images", "clips"),
    "metrics": ("psnr", "ssim", "ssim_gaussian", "ms_ssim", "lpips", "lpips_vgg", "rfid"),
    "op": ("encode", "decode", "both"),
    "preset_table": ("encode", "decode"),
}

LEAST: dict[str, int] = {
    "batch_size": 1,
    "samples_per_shard": 1,
    "max_pixels": 1,
    "steps": 1,
    "stride": 1,
    "frames": 1,
    "num_frames": 1,
    "repeats": 1,
    "threads": 1,
    "batch": 1,
    "seconds": 0,
    "workers": 0,
    "warmup": 0,
    "samples": 0,
    "pdg_strength": 0,
    "difference_gain": 1,
    "quality": 1,
    "bucket_step": 1,
    "bucket_min": 1,
    "bucket_max": 1,
    "time_limit": 0,
}
"""Smallest value of a field that is a number, or several."""
MOST: dict[str, int] = {"quality": 100, "difference_gain": 100}


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, with which weights, run where and how."""

    model: str = BUNDLED_MODEL
    weights: str | None = None
    revision: str | None = None
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "auto"
    """bf16, fp32, or auto: bf16 on a GPU, fp32 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class ImageIntake:
    """How files become equal-sized pictures; shared by encode and roundtrip."""

    sources: tuple[str, ...] = ()
    media: str = "auto"
    """images, clips, or auto: clips where all sources are video files, else images."""
    stride: int = 1
    """Of a clip, every so many frames."""
    frames: int | None = None
    """Of a clip, at most so many frames; None is all of them."""
    size: str | None = None
    """256 or 512x256 (W x H); None keeps each picture's size."""
    resize: str | None = None
    """crop, none or bucket; None is crop with a size, bucket with an area or a file, else none."""
    area: str | None = None
    """Of buckets, the pixels of each: 1024 is 1024x1024 of them, 1280x720 that many."""
    bucket_rule: str = "area"
    """How buckets are made and chosen: ours, kohya's or musubi's."""
    bucket_step: int | None = None
    """Bucket sides are multiples of it; None is the rule's own: 64, or 16 for musubi."""
    bucket_min: int | None = None
    """Shortest side of kohya's and our own buckets; None is the rule's own."""
    bucket_max: int | None = None
    """Longest side; None is the rule's own: 1024 for kohya, or what the area needs."""
    no_upscale: bool = False
    """Pictures smaller than their bucket are not enlarged: the bucket becomes smaller."""
    buckets: str | None = None
    """A file of buckets, one WIDTHxHEIGHT a line."""
    filter: str = "lanczos"
    alpha: str = "white"
    max_pixels: int = 89_478_485
    batch_size: int | None = None
    """None is 8 on a CPU and 32 on a GPU."""
    workers: int | None = None
    """Loader processes; None is one per CPU core up to 8, and 0 for a handful of inputs."""
    time_limit: float = 120.0
    """Seconds that one input may take in a loader process; 0 is no limit."""
    on_error: str = "skip"
    max_bad: str | None = None
    """Failed inputs that still count as success, a number or a percentage such as 0.5%; the job
    stops when there are more. None allows none, but goes on to the end."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How a diffusion decoder is run; other decoders ignore it."""

    steps: int = 1
    sampler: str = "ddim"
    schedule: str = "linear"
    pdg: bool = False
    pdg_strength: float = 2.0
    seed: int = 0
    num_frames: int | None = None
    """Frames that a temporal decoder sees at once; None is the model's own number."""


@dataclass(frozen=True, kw_only=True)
class EncodeJob(ModelChoice, ImageIntake):
    """Images to a latent store."""

    output: str | None = None
    """The store's folder or URL, or - for a tar stream on stdout; None is <name>.<model>.latents in
    the working directory."""
    shard_format: str = "safetensors"
    """safetensors or webdataset."""
    devices: str | None = None
    """all, a number or a list such as 0,2: one process for each; None is one process."""
    engine: str = "local"
    """local, or ray: units go to actors of a Ray cluster."""
    allow_pipe: bool = False
    """Whether sources of the form pipe:COMMAND may run a shell."""
    compare: str = "stat"
    """How a changed input is told: by size and time, or by the digest of its bytes."""
    flip: str = "none"
    """both stores the latent of the mirrored picture as well."""
    latents: str | None = None
    """None is the model's own: whitened, or scaled."""
    class_token: bool = False
    """Store the class token that the model predicts beside each latent."""
    sample: int | None = None
    """Seed of a posterior sample; None stores the mode."""
    samples_per_shard: int | None = None
    """None is 1000 images or 16 clips."""
    self_check: bool = True
    retry: str | None = None
    """failed or changed: units with such inputs are encoded again."""
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class DecodeJob(DecodeSettings):
    """A latent store, a shard or a file of latents to pictures."""

    store: str = ""
    output: str | None = None
    """Folder of pictures; None is <store name>.images in the working directory."""
    model: str | None = None
    """None is the model that the store names."""
    weights: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    """Threads that compress and write pictures; None is one per CPU core up to 8."""
    format: str | None = None
    """None is png, and mp4 for clips."""
    quality: int = 95
    latents: str | None = None
    """State of the latents in a file that does not say it itself."""
    skip_existing: bool = False
    force: bool = False
    """Decode although the latent spaces differ."""


@dataclass(frozen=True, kw_only=True)
class RoundtripJob(DecodeSettings, ImageIntake):
    """Encode and decode in memory, and compare."""

    models: tuple[str, ...] = (BUNDLED_MODEL,)
    """Each may be NAME=PATH, with the path of its weights."""
    baseline: str | None = None
    """The model that the others are compared with; None is the first of them."""
    decoders: tuple[str, ...] = ()
    """Further models that decode what the one model encoded."""
    weights: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    metrics: tuple[str, ...] = ("psnr", "ssim", "ssim_gaussian")
    metric_weights: tuple[str, ...] = ()
    """NAME=PATH: the network of a metric that needs one."""
    save: str | None = None
    """Folder for the reconstructions, one folder per model inside."""
    csv: str | None = None
    """File of one line per image."""
    report: str | None = None
    """Folder of a page that shows every image."""
    difference_gain: float = 4.0
    """What the report multiplies differences by."""


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """Time encode and decode of models, or the stages of a whole encode job."""

    models: tuple[str, ...] = (BUNDLED_MODEL,)
    baseline: str | None = None
    weights: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    op: str | None = None
    """encode, decode or both; None is both, or what the preset table has."""
    resolution: tuple[str, ...] | None = None
    """None is 256, or the preset table's."""
    batch: tuple[int, ...] | None = None
    """None is 1 and 8, or the preset table's."""
    preset_table: str | None = None
    """Exactly the rows of a published table: encode or decode."""
    steps: int = 1
    warmup: int = 2
    repeats: int = 10
    """The most timed calls of each model in a case."""
    seconds: float | None = None
    """Stop repeating a case after so many, once three repeats are in; None never stops."""
    threads: int | None = None
    """CPU threads of the networks; None is torch's own choice."""
    random_weights: bool = False
    compile: bool = False
    """Time what torch.compile makes of encode and decode."""
    chart: str | None = None
    """File of a bar chart, .png or .svg."""
    stages: bool = False
    """Time each stage of encoding `sources` instead."""
    sources: tuple[str, ...] = ()
    size: str | None = None
    batch_size: int | None = None
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """Re-check a store: every digest and count, and a few inputs encoded again."""

    store: str = ""
    samples: int = 8
    """Inputs that are encoded again and compared; 0 leaves the model alone."""
    repair: bool = False
    """Take damaged units back, so that the next encode does them again."""
    weights: str | None = None
    device: str = "auto"


def check_choices(job: object) -> None:
    """UsageError where a field of a job has a value outside its choices or its range."""
    for name, allowed in CHOICES.items():
        value = getattr(job, name, None)
        chosen = value if isinstance(value, tuple) else () if value is None else (value,)
        for one in chosen:
            if one not in allowed:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is {one!r}; allowed are {', '.join(allowed)}.")
    for name, least in LEAST.items():
        value = getattr(job, name, None)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        for number in numbers:
            if number < least or number > MOST.get(name, number):
                top = f" and at most {MOST[name]}" if name in MOST else ""
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is {number}; it must be at least {least}{top}.")


def with_weights(text: str) -> tuple[str, str | None]:
    """(name, path of the weights or None) of NAME or NAME=PATH; a folder's name may hold a =."""
    name, _, path = (text, "", "") if Path(text).exists() else text.partition("=")
    return name, path or None


def is_piped(job: EncodeJob) -> bool:
    """Whether standard input or output is an end of the job."""
    return STDIN in job.sources or job.output == STDOUT


def check_pipe(job: EncodeJob) -> None:
    """UsageError where a job that is piped asks for what a pipe cannot be."""
    if STDIN in job.sources and job.sources != (STDIN,):
        raise UsageError("- is a tar stream on standard input, and the only source then.")
    if job.devices is not None or job.engine != "local":
        raise UsageError("A pipe is read and written by one process; give files to use several.")
    if job.dry_run:
        raise UsageError("A pipe cannot be looked into beforehand: --dry-run needs files.")
    if job.output == STDOUT and job.samples_per_shard is not None:
        raise UsageError("A tar stream has no shards: leave out --samples-per-shard with -o -.")
