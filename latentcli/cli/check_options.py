"""The options of bench and verify, which only look at what encode and decode do."""

from __future__ import annotations

from typing import Annotated

from latentcli.cli.setting import Number, setting, switch

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
PresetTable = Annotated[
    str | None,
    setting(
        "preset_table",
        "Exactly the rows of a published table, encode or decode; --batch N replaces its batch"
        " sizes on a smaller machine.",
    ),
]
Warmup = Annotated[
    Number,
    setting(
        "warmup",
        "Untimed calls before the timed ones; at least one is made. Default: 2.",
        metavar="N",
    ),
]
Repeats = Annotated[
    Number, setting("repeats", "Most timed calls; the median counts. Default: 10.", metavar="N")
]
Seconds = Annotated[
    Number,
    setting(
        "seconds",
        "Repeat a case no longer than this, once 3 repeats are in. Default: no limit.",
        metavar="S",
    ),
]
Threads = Annotated[
    Number,
    setting(
        "threads",
        "CPU threads of the networks. With one, figures are steadier on a machine that others use"
        " too. Default: one per core.",
        metavar="N",
    ),
]
RandomWeights = Annotated[
    bool | None,
    switch("random_weights", "Time the network without its weights at hand. Default: off."),
]
Compile = Annotated[
    bool | None,
    switch("compile", "Time what torch.compile makes of the networks. Default: off."),
]
Chart = Annotated[
    str | None,
    setting(
        "chart",
        "Draw the rates as a bar chart, FILE.png or FILE.svg; needs matplotlib, the extra charts.",
        metavar="FILE",
    ),
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
Repair = Annotated[
    bool | None,
    switch(
        "repair",
        "Take damaged shards back: the encode command, run again, makes them anew. Default: off.",
    ),
]
