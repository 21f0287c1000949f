"""A job's field in, its command-line option out: one spelling and one help text each.

No option has a default here: None means "not given", and jobfile.py fills it from the job file or
the job's own default. So the defaults that help texts name are checked by a test.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from latentcli.cli.jobfile import section_of
from latentcli.jobs.config import CHOICES

WIDEST = 16
"""Columns of choices that the help's second column shows; the text names them all anyway."""
Number = str | None
"""Numbers stay text here: jobfile.py reads them, and tells a wrong one as it does in a job file."""
NOTHING = " "
"""What a switch takes, for the help's second column."""


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"LATENTCLI_{name.upper()}"


def setting(name: str, text: str, *flags: str, metavar: str | None = None, env: bool = True) -> Any:
    """The option of a job's field: --name unless flags say otherwise, in its stage's panel."""
    choices = CHOICES.get(name, ())
    shown = "|".join(choices)
    return typer.Option(
        *(flags or (f"--{name.replace('_', '-')}",)),
        help=text,
        metavar=metavar or (shown if len(shown) <= WIDEST else name.upper()) or None,
        envvar=variable(name) if env else None,
        show_envvar=False,
        show_default=False,
        rich_help_panel=section_of(name),
        autocompletion=(lambda: list(choices)) if choices else None,
    )


def switch(name: str, text: str) -> Any:
    """A setting that is on or off: --name or --no-name."""
    dashed = name.replace("_", "-")
    return setting(name, text, f"--{dashed}/--no-{dashed}", metavar=NOTHING)


def plain(name: str, text: str, *, metavar: str = NOTHING) -> Any:
    """An option that belongs to the command and not to the job; it stands in the first panel."""
    return typer.Option(
        f"--{name.replace('_', '-')}",
        help=text,
        metavar=metavar,
        envvar=variable(name),
        show_envvar=False,
        show_default=False,
    )


# The command itself.
Config = Annotated[
    str | None,
    plain(
        "config",
        "Job file to take settings from; options and LATENTCLI_* variables beat it. Relative paths"
        " in it are relative to the working directory.",
        metavar="JOB.toml",
    ),
]
Json = Annotated[bool, plain("json", "Print one JSON document on stdout at the end.")]
Quiet = Annotated[bool, plain("quiet", "Say nothing on stderr but errors.")]
DryRun = Annotated[
    bool | None, plain("dry_run", "Say what would be encoded, and how large, and write nothing.")
]

# read
SOURCE_HELP = (
    "Folders (searched to the bottom), image or video files, quoted globs, or @list.txt with a path"
    " a line."
)
Sources = Annotated[
    list[str] | None, typer.Argument(metavar="SRC", help=SOURCE_HELP, show_default=False)
]
BenchSources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SRC",
        help=f"With --stages: {SOURCE_HELP.replace('image or video files', 'image files')}",
        show_default=False,
    ),
]
Store = Annotated[
    str | None, typer.Argument(metavar="STORE", help="Folder of a store.", show_default=False)
]
StoreOrFile = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE",
        help="Folder of a store, or one safetensors file of latents.",
        show_default=False,
    ),
]
Media = Annotated[
    str | None,
    setting(
        "media",
        "Take the sources as images, or as clips (which needs latentcli[video]). auto (default):"
        " clips where all of them are video files.",
    ),
]
Workers = Annotated[
    Number,
    setting(
        "workers",
        "Processes that read and prepare images; 0 does it in the main one. Default: one per CPU"
        " core, up to 8. Clips are read by threads of the main one.",
        metavar="N",
    ),
]
WriterThreads = Annotated[
    Number,
    setting(
        "workers",
        "Threads that compress and write pictures. Default: one per CPU core, up to 8.",
        metavar="N",
    ),
]
OnError = Annotated[
    str | None,
    setting("on_error", "What an unreadable input does: skip it (default), or stop the job."),
]
Retry = Annotated[
    str | None,
    setting(
        "retry",
        "Encode shards again that have failed inputs, or inputs changed since (other size or"
        " time). Default: neither; both are reported.",
    ),
]
MaxBad = Annotated[
    str | None,
    setting(
        "max_bad",
        "Inputs that may fail before the exit code is 3: a number or a share such as 0.5%."
        " Default: 0.",
        metavar="N|N%",
    ),
]

# decode_image
Alpha = Annotated[
    str | None,
    setting(
        "alpha",
        "Transparent pictures are laid on white (default), black or grey; drop ignores"
        " transparency.",
    ),
]
MaxPixels = Annotated[
    Number,
    setting(
        "max_pixels",
        "Refuse pictures, and clips with frames, of more pixels than this. Default: 89478485.",
        metavar="N",
    ),
]

Stride = Annotated[
    Number, setting("stride", "Of a clip, take every Nth frame. Default: 1.", metavar="N")
]
Frames = Annotated[
    Number,
    setting("frames", "Of a clip, take at most N frames. Default: all of them.", metavar="N"),
]

# preprocess
Size = Annotated[
    str | None,
    setting(
        "size",
        "256: resize the short side and crop the centre square. 512x256: cover width x height,"
        " then crop. Default: keep each picture's size.",
        metavar="N|WxH",
    ),
]
Resize = Annotated[
    str | None,
    setting(
        "resize",
        "crop: resize and crop to --size. none: no resize, only crop the centre to the model's"
        " size rule. Default: crop with --size, none without.",
    ),
]
Filter = Annotated[
    str | None,
    setting("filter", "Resize filter, antialiased: lanczos (default), bicubic, bilinear or box."),
]

# batch
BatchSize = Annotated[
    Number,
    setting(
        "batch_size", "Images, or frames, per batch. Default: 8 on a CPU, 32 on a GPU.", metavar="N"
    ),
]

# model
MODEL_HELP = "Preset (see latentcli models), Hub id, or folder of config.json + model.safetensors."
Model = Annotated[
    str | None, setting("model", f"{MODEL_HELP} Default: fcdm_nano, the bundled one.")
]
StoreModel = Annotated[
    str | None, setting("model", f"{MODEL_HELP} Default: the one that the store names.")
]
Models = Annotated[
    list[str] | None,
    setting("model", f"{MODEL_HELP} Repeat to compare several. Default: fcdm_nano.", "--model"),
]
Decoders = Annotated[
    list[str] | None,
    setting(
        "decoder",
        "Also decode with this model what --model encoded; its latent space must be the same."
        " NAME=PATH gives its weights. Repeat for several. Default: none.",
        "--decoder",
        metavar="NAME",
    ),
]
Baseline = Annotated[
    str | None,
    setting(
        "baseline",
        "Model that speedup and memory reduction are measured against. Default: none.",
    ),
]
Weights = Annotated[
    str | None,
    setting(
        "weights",
        "File or folder of the weights. Default: $LATENTCLI_WEIGHTS/<preset>/, then the Hugging"
        " Face cache, then the Hub.",
        metavar="PATH",
        env=False,  # $LATENTCLI_WEIGHTS names a folder of folders, one per preset
    ),
]
Revision = Annotated[
    str | None,
    setting("revision", "Branch, tag or commit on the Hub. Default: the preset's.", metavar="REV"),
]
Device = Annotated[
    str | None,
    setting(
        "device", "auto (default: a GPU if there is one), cpu, cuda or cuda:N.", metavar="DEVICE"
    ),
]
Dtype = Annotated[
    str | None,
    setting("dtype", "Network's dtype; auto (default) is bf16 on a GPU and fp32 on a CPU."),
]
Force = Annotated[
    bool | None,
    switch(
        "force", "Decode although the model's latent space is not the store's. Default: refuse."
    ),
]

# encode
Latents = Annotated[
    str | None,
    setting(
        "latents",
        "What is stored: the model's own latents (default; whitened or scaled, as its card has"
        " them), raw ones, or the posterior's moments.",
    ),
]
FileLatents = Annotated[
    str | None,
    setting(
        "latents",
        "State of latents in a file that does not say it: raw, or the model's own, whitened or"
        " scaled (default); a file of moments must be a shard.",
    ),
]
Sample = Annotated[
    Number,
    setting(
        "sample",
        "Store a sample of the posterior, drawn with this seed. Default: store the mode.",
        metavar="SEED",
    ),
]
ClassToken = Annotated[
    bool | None,
    switch(
        "class_token",
        "Store the class token that the model predicts beside each latent, in float32."
        " Default: off.",
    ),
]
SelfCheck = Annotated[
    bool | None,
    switch(
        "self_check",
        "Encode and decode a few inputs before the first shard, and stop if they do not come back"
        " as pictures. Default: on.",
    ),
]

# decode
Steps = Annotated[Number, setting("steps", "Decoder steps (NFE). Default: 1.", metavar="N")]
Sampler = Annotated[str | None, setting("sampler", "ddim (default) or dpmpp_2m.")]
Schedule = Annotated[
    str | None, setting("schedule", "Spacing of the steps: linear (default) or cosine.")
]
Pdg = Annotated[bool | None, switch("pdg", "Path-drop guidance. Default: off.")]
PdgStrength = Annotated[
    Number,
    setting("pdg_strength", "Strength of path-drop guidance. Default: 2.0.", metavar="X"),
]
Seed = Annotated[
    Number,
    setting(
        "seed",
        "Seed of the decoder's noise; each picture's depends on its key. Default: 0.",
        metavar="SEED",
    ),
]

NumFrames = Annotated[
    Number,
    setting(
        "num_frames",
        "Frames of a clip that a temporal decoder sees at once. Default: the model's own number.",
        metavar="N",
    ),
]

# encode_image
Format = Annotated[
    str | None,
    setting(
        "format",
        "Files: png (default), jpeg or webp; of clips mp4 (default), or a folder of numbered"
        " pictures.",
    ),
]
Quality = Annotated[
    Number,
    setting("quality", "Quality of JPEG, WebP and MP4, 1 to 100. Default: 95.", metavar="N"),
]

# write
OutputStore = Annotated[
    str | None,
    setting(
        "output",
        "Folder of the store; one that exists is resumed. Default: <name>.<model>.latents here.",
        "--output",
        "-o",
        metavar="OUT",
    ),
]
OutputFolder = Annotated[
    str | None,
    setting(
        "output",
        "Folder of the pictures or clips. Default: <store name>.images here.",
        "--output",
        "-o",
        metavar="DIR",
    ),
]
SamplesPerShard = Annotated[
    Number,
    setting(
        "samples_per_shard", "Inputs per shard. Default: 1000 images or 16 clips.", metavar="N"
    ),
]
Save = Annotated[
    str | None,
    setting(
        "save",
        "Write the reconstructions here, one folder per model. Default: write none.",
        metavar="DIR",
    ),
]
SkipExisting = Annotated[
    bool | None,
    switch("skip_existing", "Leave pictures and clips that are there already. Default: off."),
]

# bench
Op = Annotated[str | None, setting("op", "What is timed: encode, decode or both (default).")]
Resolution = Annotated[
    list[str] | None,
    setting(
        "resolution",
        "Image sizes, repeated or with commas: 256,512x384. Default: 256.",
        metavar="N|WxH",
    ),
]
BenchBatch = Annotated[
    list[str] | None,
    setting("batch", "Batch sizes, repeated or with commas. Default: 1,8.", metavar="N"),
]
Warmup = Annotated[
    Number, setting("warmup", "Untimed calls before the timed ones. Default: 2.", metavar="N")
]
Repeats = Annotated[
    Number, setting("repeats", "Timed calls; the median counts. Default: 10.", metavar="N")
]
RandomWeights = Annotated[
    bool | None,
    switch("random_weights", "Time the network without its weights at hand. Default: off."),
]
Stages = Annotated[
    bool | None,
    switch("stages", "Time each stage of a whole encode job of SRC instead. Default: off."),
]

# verify
Samples = Annotated[
    Number,
    setting(
        "samples",
        "Inputs to encode again and compare; 0 checks the files alone. Default: 8.",
        metavar="N",
    ),
]
