"""The options of video-embed and video-distance that other commands lack, or mean otherwise."""

from __future__ import annotations

from typing import Annotated

import typer

from latentcli.cli.options import MODEL_HELP
from latentcli.cli.setting import Number, setting, switch

Clips = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CLIPS",
        help="Video files, folders of them (searched to the bottom), quoted globs, or @list.txt"
        " with a path a line.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    setting(
        "output",
        "File of the features, which must end in .safetensors.",
        "--output",
        "-o",
        metavar="FEATURES",
    ),
]
Weights = Annotated[
    str | None,
    setting(
        "weights",
        "File or folder of the VideoMAE V2 weights. Default:"
        " $LATENTCLI_WEIGHTS/videomae_v2_giant/, then the Hugging Face cache, then the Hub.",
        metavar="PATH",
        env=False,
    ),
]
GroupFrames = Annotated[
    Number,
    setting(
        "frames",
        "Frames of a group, which gives one feature vector; a shorter rest is dropped. Default:"
        " 16; the published script has 8.",
        metavar="N",
    ),
]
NetworkSize = Annotated[
    Number,
    setting(
        "size", "Frames are resized to N x N pixels for the network. Default: 224.", metavar="N"
    ),
]
Preprocess = Annotated[
    str | None,
    setting(
        "preprocess",
        "How frames are resized: cdfvd (default; bilinear, as cd-fvd), or published (bicubic by"
        " Pillow, as the published script).",
        metavar="cdfvd|published",
    ),
]
GroupBatch = Annotated[
    Number,
    setting(
        "batch_size", "Groups of frames per batch. Default: 1 on a CPU, 8 on a GPU.", metavar="N"
    ),
]
Autoencoder = Annotated[
    str | None,
    setting(
        "model",
        f"Take the frames as this autoencoder gives them back. {MODEL_HELP} Default: the frames as"
        " they are.",
    ),
]
ModelWeights = Annotated[
    str | None,
    setting(
        "model_weights",
        "File or folder of the weights of --model. Default: looked for as for other commands.",
        metavar="PATH",
    ),
]

FILE_HELP = "file of features: from video-embed, .npy, .npz, or .safetensors with one 2-D tensor."
First = Annotated[
    str | None, typer.Argument(metavar="A", help=f"First {FILE_HELP}", show_default=False)
]
Second = Annotated[
    str | None, typer.Argument(metavar="B", help=f"Second {FILE_HELP}", show_default=False)
]
Compat = Annotated[
    str | None,
    setting(
        "compat",
        "centred (default): the Frechet distance. uncentred: with raw second moments in place of"
        " covariances, to compare with figures of the published script.",
        metavar="centred|uncentred",
    ),
]
Force = Annotated[
    bool | None,
    switch("force", "Compare features although they were made differently. Default: refuse."),
]
