"""Builds a model's card from the document of `models show`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from latentcli.reports.tables import Values, abilities, facts_table, parameters

MANY = 8
"""Numbers of a list that a card still writes out."""
NOBODY = "no model here"

ORIGINS = {
    "env": "in $LATENTCLI_WEIGHTS",
    "bundled": "inside the package",
    "cached": "in the Hugging Face cache",
}
"""The place that holds the weights, in words."""

WORDS = {
    **{name: name.upper() for name in ("mlp", "pca", "psnr", "svd", "vae", "vram")},
    "adaln": "AdaLN",
    "db": "dB",
    "flux2": "FLUX.2",
    "logsnr": "log-SNR",
    "mib": "MiB",
}
"""Parts of a key that are not plain lower-case words."""

STRUCTURE = {
    "autoencoder": "class",
    "patch_size": "patch",
    "width": "width",
    "model_dim": "width",
    "width_list": "widths",
    "block_out_channels": "widths",
    "encoder_block_out_channels": "encoder widths",
    "decoder_block_out_channels": "decoder widths",
    "encoder_depth": "encoder blocks",
    "num_encoder_blocks": "encoder blocks",
    "decoder_depth": "decoder blocks",
    "num_decoder_blocks": "decoder blocks",
    "num_blocks": "blocks",
    "depth_list": "blocks",
    "layers_per_block": "layers a block",
}
"""Config keys that have a line of their own; all others share the last one."""
MIDDLE = ("decoder_start_blocks", "decoder_end_blocks")
"""Blocks of the decoder's depth that are before and after its middle."""
UNTOLD = ("in_channels", "out_channels", "output_range", *MIDDLE)
"""Config keys that are the same everywhere, or shown elsewhere."""


def model_card(document: Values) -> Iterator[RenderableType]:
    """What the model is and needs, its network, and what its authors measured."""
    yield Text(document["name"], style="bold")
    yield Text(f"{document['summary']}\n")
    yield facts_table(model_facts(document))
    yield heading(f"network: family {document['family']}")
    yield facts_table(structure_facts(document["config"], document["downscale"]))
    if document["published"]:
        yield heading("published figures")
        yield from published_figures(document["published"])


def heading(words: str) -> Text:
    """A section's first line, below an empty one."""
    return Text(f"\n{words}", style="bold")


def model_facts(document: Values) -> dict[str, str | None]:
    """What a person wants to know before using the model."""
    space = f"{document['latent_space']}#{document['latent_state']}"
    return {
        "can": capabilities(document),
        "parameters": counts(document),
        "latents": f"{document['geometry']}, {document['latent_state']}: {example(document)}",
        "latent space": space,
        "encoded by": sharers(document["encoded_by"], document["name"]),
        "decoded by": sharers(document["decoded_by"], document["name"]),
        "sizes": f"width and height are multiples of {document['size_divisor']}",
        "pixels": pixels(document),
        "needs": needs(document),
        "licence": document["licence"],
        "card": document["card"],
        "paper": document["paper"],
        "weights": weights_source(document["weights_source"]),
        "found": weights_found(document),
    }


def needs(document: Values) -> str | None:
    """How to get the extra that the model needs; None where it needs none."""
    extra = document.get("extra")
    return None if extra is None else f"pip install 'latentcli[{extra}]'"


def capabilities(document: Values) -> str:
    """encode, decode, and what few models can."""
    names = abilities(document).split()
    if document["predicts_class"]:
        names.append("class token")
    if document["is_video"]:
        names.append(f"video in chunks of {document['frames_per_chunk']} frames")
    return ", ".join(names)


def counts(document: Values) -> str:
    """The parameters, all and by part."""
    total, parts = document["parameters"], document["parameters_by_part"]
    shown = f"{total:,}"
    if parts is None:
        return f"{shown} (not known by part: {document['network_note']})"
    listed = ", ".join(f"{words(part)} {parameters(number)}" for part, number in parts.items())
    return f"{shown}: {listed}" if len(parts) > 1 else shown


def example(document: Values) -> str:
    """512x512 gives 128x32x32, 256 KiB in bf16."""
    facts = document["example"]
    size = facts["bytes_in_bf16"] / 1024
    image, latent = ("x".join(map(str, facts[name])) for name in ("image", "latent"))
    return f"{image} gives {latent}, {size:,.4g} KiB in bf16"


def sharers(names: Sequence[str], name: str) -> str:
    """The models that encode to a latent space, or decode from it; `name` is the card's own."""
    rest = [other for other in names if other != name]
    return ", ".join([*(["itself"] if name in names else []), *rest]) or NOBODY


def pixels(document: Values) -> str:
    """The range of pixel values, and what the checkpoint's own decode gives where that differs."""
    shown, given = span(document["image_range"]), document["output_range"]
    if given is None:
        return shown
    return f"{shown}; the published decode is taken to give {span(given)} (output_range)"


def span(limits: Sequence[float]) -> str:
    """-1 to 1."""
    return " to ".join(f"{limit:g}" for limit in limits)


def weights_source(source: Values) -> str:
    """Where the weights come from."""
    if source["bundled"]:
        return "inside the package"
    if not source["repo"]:
        return f"not published: --weights takes a copy of {source['file']}"
    path = "/".join(part for part in (source["subfolder"], source["file"]) if part)
    return f"{source['repo']} on the Hub, {path}, revision {source['revision']}"


def weights_found(document: Values) -> str:
    """Whether they are on this machine."""
    if document["weights_path"]:
        return f"{ORIGINS[document['weights_origin']]}: {document['weights_path']}"
    if document["weights_problem"]:
        return f"not usable: {document['weights_problem']}"
    if document["weights"] == "hub":
        return "not on this machine; the Hub is asked when the model is first used"
    if document["weights_source"]["repo"]:
        return "not on this machine, and offline mode is on (HF_HUB_OFFLINE)"
    return "not on this machine"


def structure_facts(config: Values, downscale: int) -> dict[str, str | None]:
    """A config in readable form: blocks, widths and patch, then everything else in one line."""
    facts: dict[str, str | None] = {}
    exact = "encoder_block_out_channels" in config
    for key, label in STRUCTURE.items():
        if key in config and not (exact and key == "block_out_channels"):
            facts[label] = structure_value(key, config, downscale)
    rest = (key for key in config if key not in STRUCTURE and key not in UNTOLD)
    facts["other"] = ", ".join(f"{words(key)} {value_text(config[key])}" for key in rest) or None
    return facts


def structure_value(key: str, config: Values, downscale: int) -> str:
    """The value of a key of STRUCTURE."""
    value = config[key]
    if key == "patch_size":
        side = value[0] if isinstance(value, Sequence) else value
        cells = "pixels" if side == downscale else "latent cells, folded into channels"
        return f"{side}x{side} {cells}"
    if key == "decoder_depth" and all(part in config for part in MIDDLE):
        start, end = (config[part] for part in MIDDLE)
        return f"{value}: {start} before the middle, {value - start - end} in it, {end} after it"
    return value_text(value)


def words(key: str) -> str:
    """A key as people write it: psnr_db is PSNR dB."""
    return " ".join(WORDS.get(part, part) for part in key.split("_"))


def value_text(value: Any) -> str:
    """A config's value; of many numbers only how many, and their range."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, list):
        return str(value)
    if len(value) > MANY and all(isinstance(item, (int, float)) for item in value):
        return f"({len(value)} numbers, {min(value):g} to {max(value):g})"
    if len(value) > 1 and isinstance(value[0], str) and len(set(value)) == 1:
        return f"{len(value)} x {value[0]}"
    return ", ".join(map(str, value))


def published_figures(published: Values) -> Iterator[RenderableType]:
    """The source, single figures, a table for each set of columns, and what is no figure."""
    singles = {k: v for k, v in published.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in published.items() if isinstance(v, Mapping)}
    yield facts_table({words(k): value_text(v) for k, v in singles.items()})
    figures = {k: v for k, v in nested.items() if all(map(is_figure, v.values()))}
    for group in alike(figures):
        yield Text()
        yield figures_table(group)
    for name, facts in nested.items():
        if name not in figures:
            yield heading(words(name))
            yield facts_table({words(k): every(v) for k, v in facts.items()})


def is_figure(value: object) -> bool:
    """Whether a value is a single number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def every(value: Any) -> str:
    """A list in full, or the value."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value_text(value)


def alike(figures: Mapping[str, Values]) -> list[dict[str, Values]]:
    """The rows in groups that share columns, in the order in which they come."""
    groups: list[dict[str, Values]] = []
    for name, row in figures.items():
        group = next((g for g in groups if row.keys() & columns(g)), None)
        if group is None:
            groups.append(group := {})
        group[name] = row
    return groups


def columns(group: Mapping[str, Values]) -> dict[str, None]:
    """The keys of all rows, ordered as the longest row has them."""
    rows = sorted(group.values(), key=len, reverse=True)
    return dict.fromkeys(key for row in rows for key in row)


def figures_table(group: Mapping[str, Values]) -> Table:
    """One row per name, one column per key; no figure is cut on a narrow terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    for key in columns(group):
        table.add_column(Text(words(key)), justify="right", overflow="fold")
    for name, row in group.items():
        show = decimals(row.values())
        table.add_row(Text(words(name)), *(show(row.get(key)) for key in columns(group)))
    return table


def decimals(row: Iterable[float]) -> Callable[[float | None], str]:
    """How the figures of a row are written: each with as many decimals as the longest has."""
    exponents = (int(Decimal(str(value)).as_tuple().exponent) for value in row)
    most = max(0, *(-exponent for exponent in exponents))
    return lambda value: "" if value is None else f"{value:.{most}f}"
