"""Every job's fields in, their command-line options out: one spelling and one help text each.

No option has a default here: None means "not given", and jobfile.py fills it from the job file or
the job's own default. So the defaults that help texts name are checked by a test.
"""

from __future__ import annotations

from typing import Annotated

import typer

from latentcli.cli.setting import Number, plain, setting, switch

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
    "Folders (searched to the bottom), image or video files, tar shards ({000..099}.tar), quoted"
    " globs, URLs (s3://, gs://, hf://), or @list.txt with a path a line."
)
Sources = Annotated[
    list[str] | None, typer.Argument(metavar="SRC", help=SOURCE_HELP, show_default=False)
]
EncodeSources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SRC", help=f"{SOURCE_HELP} - is a tar stream on stdin.", show_default=False
    ),
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
        help="Folder or URL of a store, one of its shards, a safetensors file of latents, or - for"
        " a tar stream of latents on stdin.",
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
        "Inputs that may fail: a number or a share such as 0.5%. When more have, the job stops with"
        " exit code 3; 100% never does. Default: none may, but the job goes on to the end.",
        metavar="N|N%",
    ),
]

Compare = Annotated[
    str | None,
    setting(
        "compare",
        "How a changed input is told: by size and time (stat, default), or by the digest of its"
        " bytes, which reads every input.",
    ),
]
TimeLimit = Annotated[
    Number,
    setting(
        "time_limit",
        "Seconds that one input may take to be read and prepared before it counts as failed; needs"
        " --workers of 1 or more. 0 is no limit. Default: 120.",
        metavar="S",
    ),
]
AllowPipe = Annotated[
    bool | None,
    switch(
        "allow_pipe",
        "Let sources of the form pipe:COMMAND run a shell, whose output is a tar. Default: off.",
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
        "crop: resize and crop to --size. bucket: to a bucket of like aspect ratio, see --area."
        " none: no resize, only crop the centre to the model's size rule. Default: crop with"
        " --size, bucket with --area or --buckets, else none.",
    ),
]
Area = Annotated[
    str | None,
    setting(
        "area",
        "Of buckets, the pixels of each: 1024 is as many as 1024x1024 has. Default: no buckets.",
        metavar="N|WxH",
    ),
]
BucketRule = Annotated[
    str | None,
    setting(
        "bucket_rule",
        "How buckets are made and chosen: area (default; nearest aspect ratio), or as kohya's"
        " sd-scripts or musubi-tuner do, so that caches line up with theirs.",
    ),
]
BucketStep = Annotated[
    Number,
    setting(
        "bucket_step",
        "Bucket sides are multiples of this. Default: 64, and 16 for musubi.",
        metavar="N",
    ),
]
BucketMin = Annotated[
    Number,
    setting(
        "bucket_min",
        "Shortest side of a bucket. Default: the rule's own; 256 for kohya.",
        metavar="N",
    ),
]
BucketMax = Annotated[
    Number,
    setting(
        "bucket_max",
        "Longest side of a bucket. Default: the rule's own; 1024 for kohya.",
        metavar="N",
    ),
]
NoUpscale = Annotated[
    bool | None,
    switch("no_upscale", "Never enlarge: a small picture gets a smaller bucket. Default: off."),
]
BucketFile = Annotated[
    str | None,
    setting(
        "buckets",
        "File of the buckets, one WIDTHxHEIGHT a line, instead of --area. Default: none.",
        metavar="FILE",
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
EncodeBatchSize = Annotated[
    Number,
    setting(
        "batch_size",
        "Images, or frames, per batch. Default: that of the store that is gone on with; else 8 on a"
        " CPU, and on a GPU what a short trial finds.",
        metavar="N",
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
Devices = Annotated[
    str | None,
    setting(
        "devices",
        "all, a number, or a list such as 0,2: one process for each of these GPUs; with --device"
        " cpu so many processes. Default: one process.",
        metavar="N|LIST",
    ),
]
EngineName = Annotated[
    str | None,
    setting(
        "engine",
        "local (default), or ray: units go to actors of a Ray cluster, as many as --devices says"
        " (needs latentcli[ray]).",
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
Flip = Annotated[
    str | None,
    setting(
        "flip",
        "both: store the latent of the mirrored picture too, from one image decode. Default: none.",
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
        "Folder or URL of the store; one that exists is resumed. - writes a tar stream to stdout."
        " Default: <name>.<model>.latents here.",
        "--output",
        "-o",
        metavar="OUT",
    ),
]
OutputFolder = Annotated[
    str | None,
    setting(
        "output",
        "Folder of the pictures or clips; - writes a tar stream to stdout. Default: <store"
        " name>.images here.",
        "--output",
        "-o",
        metavar="DIR",
    ),
]
SamplesPerShard = Annotated[
    Number,
    setting(
        "samples_per_shard",
        "Inputs per shard. Default: 1000 images or 16 clips; a tar always becomes one shard.",
        metavar="N",
    ),
]
ShardFormat = Annotated[
    str | None,
    setting(
        "shard_format",
        "Of the shards: safetensors (default), or webdataset: tars, with everything else in a"
        " tar's samples passed on as it is.",
        "--format",
    ),
]
SkipExisting = Annotated[
    bool | None,
    switch("skip_existing", "Leave pictures and clips that are there already. Default: off."),
]
