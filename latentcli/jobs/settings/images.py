"""Holds the options of pictures that several jobs share, each with its help and bounds.

Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from latentcli.core.options import option
from latentcli.core.pixel_size import pixel_size
from latentcli.jobs.runtime.failures import allowed_failures
from latentcli.jobs.runtime.given_names import check_input

SOURCES = (
    "Folders, image or video files, tar shards ({000..099}.tar), tables (.parquet, .arrow,"
    " .jsonl), quoted globs, URLs (s3://, gs://, hf://), or @list.txt with one path per line."
    " Folders are searched recursively. @- reads the list from stdin."
)
NO_SOURCES = "Give what to read: folders, image files, quoted globs or @list.txt."

ALL_FIELDS = "all"
"""The image field of a job that takes every picture of a sample."""


@dataclass(frozen=True, kw_only=True)
class ImageIntake:
    """How files become equal-sized pictures; shared by encode and roundtrip."""

    sources: tuple[str, ...] = option(
        (),
        SOURCES,
        argument=True,
        section="read",
        metavar="SRC",
        needed=NO_SOURCES,
        exists=check_input,
    )
    media: str = option(
        "auto",
        "Read the sources as images or as clips: auto (default), images or clips. auto reads clips"
        " if all sources are video files. Clips need latentcli[video].",
        section="read",
        panel="select",
        choices=("auto", "images", "clips"),
    )
    image_field: str | None = option(
        None,
        "Which image or clip of each tar sample to encode, such as jpg, image.png or image; of a"
        " table, which column. all: each one, as <key>/<field>. Default: in a tar, the field"
        " without a dot (jpg, png, ...); samples with several of these, or with none, fail. In a"
        " table, the column with a usual name or type.",
        section="read",
        panel="fields",
        metavar="NAME",
    )
    image_root: str | None = option(
        None,
        "Folder that must contain the images named by paths in a table; relative paths start"
        " there. Default: the folder of the table.",
        section="read",
        panel="fields",
        metavar="DIR",
    )
    include: tuple[str, ...] = option(
        (),
        "Take only files that match PATTERN; repeat for several. Paths below the source are"
        " matched as in .gitignore: * and ? stop at a slash, ** does not. A pattern without a slash"
        " matches at any depth; one that matches a folder takes all in it. Default: all files.",
        section="read",
        panel="select",
        metavar="PATTERN",
    )
    exclude: tuple[str, ...] = option(
        (),
        "Leave out files and folders that match PATTERN, written as for --include, even if that"
        " takes them. Default: none.",
        section="read",
        panel="select",
        metavar="PATTERN",
    )
    limit: int | None = option(
        None,
        "Take only the first N inputs, by their keys. A larger N later appends the rest to the"
        " store. Default: all.",
        section="read",
        daily=True,
        least=1,
    )
    null: bool = option(
        False,
        "Names in @lists end with a NUL, as find -print0 writes them. Default: off, one name per"
        " line.",
        section="read",
        panel="select",
        flags=("--null", "-0"),
    )
    include_output: bool = option(
        False,
        "Also take images that latentcli itself decoded, or wrote for a report. Default: off; a"
        " decoded folder that is named as the source is taken anyway.",
        section="read",
        panel="select",
    )
    workers: int | None = option(
        None,
        "Processes that read and prepare images. 0: the main process does it. At most 4 per CPU"
        " core. Clips are read by threads of the main process. Default: 0 for fewer than 64 inputs,"
        " else one per CPU core, up to 8, and above 10 cores all but 2.",
        section="read",
        panel="batch",
        daily=True,
        least=0,
    )
    on_error: str = option(
        "skip",
        "If an input fails: skip it (default), or stop the job.",
        section="read",
        panel="trouble",
        daily=True,
        choices=("skip", "stop"),
    )
    max_bad: str | None = option(
        None,
        "Inputs that may fail: a number, or a share like 0.5%. If more fail, the job stops with"
        " exit code 3; with 100% it never does. Default: none may, checked at the end.",
        section="read",
        panel="trouble",
        daily=True,
        metavar="N|N%",
        check=lambda text: allowed_failures(text, 0),
    )
    time_limit: float = option(
        120.0,
        "Seconds in which an input must be read and prepared, or it fails; needs --workers of 1 or"
        " more. 0: no limit. Default: 120.",
        section="read",
        panel="trouble",
        least=0,
        metavar="S",
    )
    alpha: str = option(
        "white",
        "Background of transparent images: white (default), black or grey; drop ignores"
        " transparency.",
        section="decode_image",
        choices=("white", "black", "grey", "drop"),
    )
    max_pixels: int = option(
        89_478_485,
        "Most pixels of an image or a frame; larger ones are refused. Default: 89478485.",
        section="decode_image",
        least=1,
    )
    min_side: int | None = option(
        None,
        "Leave out images and clips whose short side has fewer than N pixels. They are counted,"
        " not as failures. Default: none is left out.",
        section="decode_image",
        panel="select",
        least=1,
        metavar="N",
    )
    min_megapixels: float | None = option(
        None,
        "Leave out images and clips of fewer than X megapixels; 0.5 is 500,000 pixels. Default:"
        " none is left out.",
        section="decode_image",
        panel="select",
        least=0,
        metavar="X",
    )
    max_aspect: float | None = option(
        None,
        "Leave out images and clips whose long side is more than X times the short one. Default:"
        " none is left out.",
        section="decode_image",
        panel="select",
        least=1,
        metavar="X",
    )
    stride: int = option(
        1, "Take every Nth frame of a clip. Default: 1.", section="decode_image", least=1
    )
    frames: int | None = option(
        None,
        "Take at most N frames of a clip. Default: all of them.",
        section="decode_image",
        least=1,
    )
    size: str | None = option(
        None,
        "Resize and crop to N x N or W x H pixels. 256: resize the short side and crop the centre"
        " square. 512x256: cover width x height, then crop. Default: keep the size.",
        section="preprocess",
        daily=True,
        metavar="N|WxH",
        check=partial(pixel_size, option="--size"),
    )
    resize: str | None = option(
        None,
        "How images get their size: crop (resize and crop to --size), bucket (the one of the most"
        " similar aspect ratio, see --area), or none (only crop the centre to sides that the model"
        " can take). Default: crop with --size, bucket with --area or --buckets, else none.",
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
        "Decode JPEG files at full size before they are resized. Default: off; where enough"
        " pixels remain, they are decoded at a half, a quarter or an eighth of each side, which"
        " is faster. A store that exists keeps its setting.",
        section="preprocess",
    )
    area: str | None = option(
        None,
        "Aspect-ratio buckets of N x N (or W x H) pixels each. With 1024, each has about as many"
        " pixels as 1024x1024. Default: none.",
        section="preprocess",
        daily=True,
        metavar="N|WxH",
        check=partial(pixel_size, option="--area"),
    )
    bucket_rule: str = option(
        "area",
        "How buckets are made and chosen: area (default; nearest aspect ratio), or as the trainers"
        " kohya, musubi, ai-toolkit or simpletuner do, so that caches match theirs."
        " simpletuner-pixel: --area is the shorter side.",
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
        "Never enlarge: a small image gets a smaller bucket; not for ai-toolkit and simpletuner."
        " Default: off.",
        section="preprocess",
        flags=("--no-upscale/--upscale",),
    )
    buckets: str | None = option(
        None,
        "File of buckets to use instead of --area, one WIDTHxHEIGHT per line. Default: none.",
        section="preprocess",
        metavar="FILE",
    )
    batch_size: int | None = option(
        None,
        "Images, or frames, per batch. Default: 8 on a CPU, 32 on a GPU.",
        section="batch",
        daily=True,
        least=1,
        flags=("--batch-size", "-b"),
    )
