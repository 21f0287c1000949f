"""Holds the options that several jobs share, each with its help, choices and bounds.

Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.byte_size import byte_size
from latentcli.core.options import option
from latentcli.jobs.runtime.failures import allowed_failures
from latentcli.jobs.runtime.follow_options import TRACKERS, check_log, check_metrics

SOURCES = (
    "Folders (searched to the bottom), image or video files, tar shards ({000..099}.tar), tables"
    " (.parquet, .arrow, .jsonl), quoted globs, URLs (s3://, gs://, hf://), or @list.txt with a"
    " path a line (@- reads it from stdin)."
)
MODEL = "Preset (see latentcli models), Hub id, or folder of config.json + model.safetensors."
NO_SOURCES = "Give what to read: folders, image files, quoted globs or @list.txt."
NO_STORE = "Give the store: the folder that latentcli encode wrote."

ALL_FIELDS = "all"
"""The image field of a job that takes every picture of a sample."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """With which weights a model is run, where and how."""

    weights: str | None = option(
        None,
        "File or folder of the weights. Default: $LATENTCLI_WEIGHTS/<preset>/, then the Hugging"
        " Face cache, then the Hub.",
        section="model",
        metavar="PATH",
        variable=False,  # $LATENTCLI_WEIGHTS names a folder of folders, one per preset
    )
    revision: str | None = option(
        None,
        "Branch, tag or commit on the Hub. Default: the preset's.",
        section="model",
        metavar="REV",
    )
    device: str = option(
        "auto",
        "auto (default: a GPU if there is one), cpu, cuda or cuda:N.",
        section="model",
        metavar="DEVICE",
    )
    dtype: str = option(
        "auto",
        "Network's dtype; auto (default) is bf16 on a GPU that knows it or a CPU that multiplies in"
        " it, else fp32.",
        section="model",
        choices=("auto", "bf16", "fp32"),
    )


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """Whether a model's networks are compiled."""

    compile: str = option(
        "auto",
        "on: run what torch.compile makes of the networks, for the sizes of --size or of a few"
        " buckets; it takes up to a minute for each, and a compiler. off: do not. auto (default):"
        " in very large jobs of a model that was measured to gain by it, else not.",
        section="model",
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How much memory a model may take."""

    max_memory: str | None = option(
        None,
        "Most memory of the device that the model may take, with its weights and a batch, such as"
        " 4GiB. Batches get smaller, and pictures that are too large alone are computed in parts,"
        " where the model can. Default: no limit.",
        section="model",
        check=lambda text: byte_size(text, "--max-memory"),
        metavar="SIZE",
    )

    @property
    def most_bytes(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else byte_size(self.max_memory, "--max-memory")


@dataclass(frozen=True, kw_only=True)
class FollowSettings:
    """Where the progress of a job is told besides standard error (docs/guides/watching.md)."""

    log_json: str | None = option(
        None,
        "Append to this file a line of JSON every 5 seconds, and for each unit that is written."
        " Default: none.",
        section="follow",
        metavar="FILE",
        check=check_log,
    )
    metrics_file: str | None = option(
        None,
        "Keep the job's figures in this file, which must end in .prom, for the textfile collector"
        " of Prometheus (needs latentcli[prometheus]). Default: none.",
        section="follow",
        metavar="FILE.prom",
        check=check_metrics,
    )
    track: str | None = option(
        None,
        "wandb: send the job's figures to Weights & Biases (needs latentcli[wandb]). Default: send"
        " none.",
        section="follow",
        choices=TRACKERS,
    )


@dataclass(frozen=True, kw_only=True)
class ImageIntake:
    """How files become equal-sized pictures; shared by encode and roundtrip."""

    sources: tuple[str, ...] = option(
        (), SOURCES, argument=True, section="read", metavar="SRC", needed=NO_SOURCES
    )
    media: str = option(
        "auto",
        "Take the sources as images, or as clips (which needs latentcli[video]). auto (default):"
        " clips where all of them are video files.",
        section="read",
        choices=("auto", "images", "clips"),
    )
    image_field: str | None = option(
        None,
        "Of a tar's samples with several pictures (or clips), the field to encode, such as jpg,"
        " image.png or image; all: each, as <key>/<field>. Of a table, the column. Default: of a"
        " tar, the field without a dot (jpg, png, ...), and a sample with several, or without,"
        " fails; of a table, the column whose name or kind says so.",
        section="read",
        metavar="NAME",
    )
    image_root: str | None = option(
        None,
        "Folder that the pictures which a table names by their paths must lie in; relative paths"
        " begin there. Default: the folder of the table.",
        section="read",
        metavar="DIR",
    )
    include: tuple[str, ...] = option(
        (),
        "Take only files that match; repeat for several. Paths below the source are matched as in"
        " .gitignore: * and ? stop at a slash, ** does not; without a slash a pattern holds at any"
        " depth, and that of a folder for all in it. Default: all.",
        section="read",
        metavar="PATTERN",
    )
    exclude: tuple[str, ...] = option(
        (),
        "Leave out files and folders that match, as --include, also where that takes them. Default:"
        " none.",
        section="read",
        metavar="PATTERN",
    )
    limit: int | None = option(
        None,
        "Take only the first N inputs in the order of their keys. A larger N later appends the"
        " rest to the store. Default: all.",
        section="read",
        least=1,
    )
    null: bool = option(
        False,
        "The names in @lists end with a NUL, as find -print0 writes them. Default: off, a name a"
        " line.",
        section="read",
        flags=("--null", "-0"),
    )
    include_output: bool = option(
        False,
        "Take pictures that latentcli itself decoded, or wrote for a report, as inputs too."
        " Default: off; but a decoded folder that is named as the source is taken.",
        section="read",
    )
    workers: int | None = option(
        None,
        "Processes that read and prepare images; 0 does it in the main one. Default: 0 for"
        " fewer than 64 inputs, else one per CPU core, up to 8, and above 10 cores all but 2; at"
        " most 4 per core. Clips are read by threads of the main one.",
        section="read",
        least=0,
    )
    on_error: str = option(
        "skip",
        "What an unreadable input does: skip it (default), or stop the job.",
        section="read",
        choices=("skip", "stop"),
    )
    max_bad: str | None = option(
        None,
        "Inputs that may fail: a number or a share such as 0.5%. When more have, the job stops"
        " with exit code 3; 100% never does. Default: none may, but the job goes on to the end.",
        section="read",
        metavar="N|N%",
        check=lambda text: allowed_failures(text, 0),
    )
    time_limit: float = option(
        120.0,
        "Seconds that one input may take to be read and prepared before it counts as failed;"
        " needs --workers of 1 or more. 0 is no limit. Default: 120.",
        section="read",
        least=0,
        metavar="S",
    )
    alpha: str = option(
        "white",
        "Transparent pictures are laid on white (default), black or grey; drop ignores"
        " transparency.",
        section="decode_image",
        choices=("white", "black", "grey", "drop"),
    )
    max_pixels: int = option(
        89_478_485,
        "Refuse pictures, and clips with frames, of more pixels than this. Default: 89478485.",
        section="decode_image",
        least=1,
    )
    min_side: int | None = option(
        None,
        "Leave out pictures and clips whose short side has fewer pixels than this. What is left out"
        " is counted, and is no failure. Default: none is.",
        section="decode_image",
        least=1,
        metavar="N",
    )
    min_megapixels: float | None = option(
        None,
        "The same with fewer pixels in all: 0.5 is 500,000. Default: none is left out.",
        section="decode_image",
        least=0,
        metavar="X",
    )
    max_aspect: float | None = option(
        None,
        "The same where the long side is more than X times the short one. Default: none is left"
        " out.",
        section="decode_image",
        least=1,
        metavar="X",
    )
    stride: int = option(
        1, "Of a clip, take every Nth frame. Default: 1.", section="decode_image", least=1
    )
    frames: int | None = option(
        None,
        "Of a clip, take at most N frames. Default: all of them.",
        section="decode_image",
        least=1,
    )
    size: str | None = option(
        None,
        "256: resize the short side and crop the centre square. 512x256: cover width x height,"
        " then crop. Default: keep each picture's size.",
        section="preprocess",
        metavar="N|WxH",
    )
    resize: str | None = option(
        None,
        "crop: resize and crop to --size. bucket: to a bucket of like aspect ratio, see --area."
        " none: no resize, only crop the centre to the model's size rule. Default: crop with"
        " --size, bucket with --area or --buckets, else none.",
        section="preprocess",
        choices=("crop", "none", "bucket"),
    )
    filter: str = option(
        "lanczos",
        "Resize filter, antialiased: lanczos (default), bicubic, bilinear or box.",
        section="preprocess",
        choices=("lanczos", "bicubic", "bilinear", "box"),
    )
    exact_resize: bool = option(
        False,
        "Decode every JPEG file whole before it is resized. Default: off; where enough pixels"
        " remain, the decoder gives a half, a quarter or an eighth of each side, in less time. A"
        " store that is there is gone on with as it was made.",
        section="preprocess",
    )
    area: str | None = option(
        None,
        "Of buckets, the pixels of each: 1024 is as many as 1024x1024 has. Default: no buckets.",
        section="preprocess",
        metavar="N|WxH",
    )
    bucket_rule: str = option(
        "area",
        "How buckets are made and chosen: area (default; nearest aspect ratio), or as the trainers"
        " kohya, musubi, ai-toolkit or simpletuner do (simpletuner-pixel: --area is the shorter"
        " side), so that caches line up with theirs.",
        section="preprocess",
        choices=("area", "kohya", "musubi", "ai-toolkit", "simpletuner", "simpletuner-pixel"),
    )
    bucket_step: int | None = option(
        None,
        "Bucket sides are multiples of this. Default: 64, and 16 for musubi and ai-toolkit.",
        section="preprocess",
        least=1,
    )
    bucket_min: int | None = option(
        None,
        "Shortest side of a bucket. Default: the rule's own; 256 for kohya.",
        section="preprocess",
        least=1,
    )
    bucket_max: int | None = option(
        None,
        "Longest side of a bucket. Default: the rule's own; 1024 for kohya.",
        section="preprocess",
        least=1,
    )
    no_upscale: bool = option(
        False,
        "Never enlarge: a small picture gets a smaller bucket; not for ai-toolkit and simpletuner."
        " Default: off.",
        section="preprocess",
    )
    buckets: str | None = option(
        None,
        "File of the buckets, one WIDTHxHEIGHT a line, instead of --area. Default: none.",
        section="preprocess",
        metavar="FILE",
    )
    batch_size: int | None = option(
        None,
        "Images, or frames, per batch. Default: 8 on a CPU, 32 on a GPU.",
        section="batch",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How a diffusion decoder is run; other decoders ignore it."""

    steps: int = option(1, "Decoder steps (NFE). Default: 1.", section="decode", least=1)
    sampler: str = option(
        "ddim", "ddim (default) or dpmpp_2m.", section="decode", choices=("ddim", "dpmpp_2m")
    )
    schedule: str = option(
        "linear",
        "Spacing of the steps: linear (default) or cosine.",
        section="decode",
        choices=("linear", "cosine"),
    )
    pdg: bool = option(False, "Path-drop guidance. Default: off.", section="decode")
    pdg_strength: float = option(
        2.0, "Strength of path-drop guidance. Default: 2.0.", section="decode", least=0, metavar="X"
    )
    seed: int = option(
        0,
        "Seed of the decoder's noise; each picture's depends on its key. Default: 0.",
        section="decode",
        metavar="SEED",
    )
    num_frames: int | None = option(
        None,
        "Frames of a clip that a temporal decoder sees at once. Default: the model's own number.",
        section="decode",
        least=1,
    )
