"""Writes the card of a store as a dataset of the Hugging Face Hub: front matter and Markdown.

Equal facts give equal text: there is no time and no host name in it.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from latentcli.core.byte_size import byte_words

Facts = Mapping[str, Any]

PLACEHOLDER = "OWNER/NAME"
"""Stands for a repository that is not known yet."""
SIZES = 12
"""Sizes of latents that are listed."""
_CATEGORIES = (
    *((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M")),
    *((1e7, "1M<n<10M"), (1e8, "10M<n<100M"), (1e9, "100M<n<1B"), (1e10, "1B<n<10B")),
    *((1e11, "10B<n<100B"), (1e12, "100B<n<1T")),
)
_LIST = {
    "key": "string",
    "source": "string",
    "unit": "int64",
    "size": "int64",
    "mtime_ns": "int64",
    "stamp": "int64",
    "sha256": "string",
}
"""Columns of the input list. They are told to the Hub, whose reader would take them from the first
lines, and fail at the first line with another one."""
STATES = {
    "whitened": "whitened: each channel has about zero mean and unit variance",
    "scaled": "scaled: one factor, and where the model has one a shift, for all channels",
    "raw": "raw: as the network gives them, neither whitened nor scaled",
    "moments": "moments: mean and variance of the posterior, to be sampled while training",
}


def size_category(count: int) -> str:
    """The Hub's word for a number of samples."""
    return next((name for top, name in _CATEGORIES if count < top), "n>1T")


def front_matter(facts: Facts) -> str:
    """YAML that the Hub reads, without the lines around it.

    The viewer is shown the input list, or tars of which all samples have the same members, as it
    wants them: shards, records and fields are files that it would take for one table, and fail.
    """
    clips, captions = facts["media"] == "clips", facts["captions"]
    kind = "video" if clips else "image"
    task = f"text-to-{kind}" if captions else f"unconditional-{kind}-generation"
    tags = ["latents", "latentcli", "diffusion", _slug(facts["model"]["name"])]
    lines = [
        f"license: {_yaml(facts['license'])}",
        f"pretty_name: {_yaml(facts['name'])}",
        "size_categories:",
        f"- {size_category(facts['encoded'])}",
        *(["task_categories:", f"- {task}"] if captions or not clips else []),
        "tags:",
        *(f"- {_yaml(tag)}" for tag in dict.fromkeys(tags)),
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        f"    path: {'shards/*.tar' if facts['equal_members'] else 'inputs.jsonl'}",
    ]
    if not facts["equal_members"]:
        lines += ["dataset_info:", "  config_name: default", "  features:"]
        for name, dtype in _LIST.items():
            lines += [f"  - name: {name}", f"    dtype: {dtype}"]
    return "\n".join(lines) + "\n"


def card_text(facts: Facts) -> str:
    """The Markdown below the front matter."""
    parts = (_head, _model, _data, _preprocessing, _statistics, _pictures, _loading, _making)
    return "\n\n".join("\n".join(part(facts)) for part in parts if any(part(facts))) + "\n"


def _head(facts: Facts) -> Iterator[str]:
    noun = "clips" if facts["media"] == "clips" else "images"
    yield f"# {_text(facts['name'])}"
    yield ""
    yield (
        f"Latents of {facts['encoded']:,} {noun}, encoded once for training latent diffusion"
        f" models. They are in the latent space `{facts['latent_space']}`. There are no {noun} in"
        " this repository."
    )
    if facts["license"] == "unknown":
        yield ""
        yield (
            f"The licence is not filled in yet: latents are made from {noun}, so the licence of"
            f" the {noun} decides. Set `license` above."
        )


def _model(facts: Facts) -> Iterator[str]:
    model, latent = facts["model"], facts["latent"]
    divisor = latent["size_divisor"]
    yield from _table(
        "Model",
        ("model", f"`{model['name']}`" + (f" ({model['summary']})" if model["summary"] else "")),
        ("family", f"`{model['family']}`"),
        ("repository", _repository(model)),
        ("revision", f"`{model['revision']}`" if model["revision"] else None),
        ("SHA-256 of the weights", f"`{model['weights_sha256']}`"),
        ("licence of the weights", model["licence"]),
        ("latent space", f"`{facts['latent_space']}`"),
        ("state", STATES.get(facts["state"], facts["state"])),
        ("dtype", facts["dtype"]),
        (
            "geometry",
            f"{latent['channels']} channels, one cell for {latent['downscale']}x"
            f"{latent['downscale']} pixels; sides of pictures are multiples of {divisor}",
        ),
    )


def _repository(model: Facts) -> str | None:
    repo = model["repo"]
    return f"[{repo}](https://huggingface.co/{repo})" if repo else None


def _data(facts: Facts) -> Iterator[str]:
    totals, captions = facts["totals"], facts["captions"]
    others = ", ".join(f"`{name}` ({n:,})" for name, n in facts["fields"].items())
    yield from _table(
        "Data",
        ("sources", ", ".join(f"`{name}`" for name in facts["sources"]) or "not told"),
        ("inputs", f"{totals['inputs']:,}"),
        ("encoded", f"{totals['encoded']:,}"),
        ("failed", f"{totals['failed']:,} (`failures.jsonl` says why)"),
        ("left out by filters", f"{totals['filtered']:,}"),
        ("with a caption", f"{captions:,}"),
        ("other fields", others or None),
        ("shards", f"{totals['shards']:,}, {byte_words(totals['bytes'])} in all"),
    )
    if facts["missing"]:
        yield ""
        yield f"**Incomplete:** {_text(facts['missing'])}."


def _preprocessing(facts: Facts) -> Iterator[str]:
    done, decoded = facts["preprocessing"], facts["decode_image"]
    size = done["size"] and "x".join(map(str, done["size"]))
    ways = {
        "crop": f"resized to cover {size}, then the centre cropped",
        "bucket": "resized to the size with the nearest aspect ratio among several, then cropped",
        "none": "not resized; the centre cropped to the model's size rule",
    }
    buckets = done.get("buckets") or {}
    yield from _table(
        "Preprocessing",
        ("pictures are", ways.get(done["resize"], done["resize"])),
        ("filter", f"{done['filter']} ({done['resizer']})" if done["filter"] else None),
        ("large JPEG files", "reduced while decoded" if done.get("reducing_gaps") else None),
        ("buckets", f"rule {buckets['rule']}, {len(buckets['table'])} sizes" if buckets else None),
        (
            "transparency",
            f"on {decoded['alpha']}" if decoded["alpha"] != "drop" else "ignored",
        ),
        ("mirrored latents", "stored too" if facts["flip"] else None),
        ("frames of clips", _frames(facts["clips"])),
    )


def _frames(clips: Facts | None) -> str | None:
    if clips is None:
        return None
    most = f", {clips['frames']} at most" if clips["frames"] else ""
    return f"one of every {clips['stride']}{most}" if clips["stride"] != 1 else f"all{most}"


def _statistics(facts: Facts) -> Iterator[str]:
    yield "## Statistics"
    yield ""
    channels = facts["channels"]
    if channels and channels["mean"]:
        yield f"Of the stored latents, over all values of each of {len(channels['mean'])} channels:"
        yield ""
        yield "| | smallest | average | largest |"
        yield "|---|---|---|---|"
        for name, told in (("mean", "mean"), ("std", "standard deviation")):
            values = channels[name]
            at = [values.index(edge(values)) for edge in (min, max)]
            low, high = (f"{values[i]:.4g} (channel {i})" for i in at)
            yield f"| {told} | {low} | {sum(values) / len(values):.4g} | {high} |"
        yield ""
        yield "`manifest.json` has the figures of each channel."
        yield ""
    sizes = facts["sizes"]
    yield "| latents | pixels | samples |"
    yield "|---|---|---|"
    for item in sizes[:SIZES]:
        (w, h), (wide, high) = item["latent"], item["pixels"]
        yield f"| {w}x{h} | {wide}x{high} | {item['count']:,} |"
    if len(sizes) > SIZES:
        rest = sum(item["count"] for item in sizes[SIZES:])
        yield f"| {len(sizes) - SIZES:,} more sizes | | {rest:,} |"


def _pictures(facts: Facts) -> Iterator[str]:
    shown: Sequence[Facts] = facts["pictures"]
    if not shown:
        return
    yield "## Latents in colours"
    yield ""
    yield (
        "Red, green and blue are the first three principal components of the latents"
        f" ({facts['explained']:.0%} of their variance), evenly over the store."
    )
    yield ""
    for item in shown:
        width, height = item["size"]
        alt = html.escape(item["key"])
        yield f'<img src="{item["file"]}" width="{width}" height="{height}" alt="{alt}">'


def _loading(facts: Facts) -> Iterator[str]:
    url = f"hf://datasets/{facts['repo'] or PLACEHOLDER}"
    yield "## Loading"
    yield ""
    yield "```python"
    yield "import latentcli"
    yield ""
    yield f'store = latentcli.open_store("{url}")'
    yield "key = next(iter(store))"
    yield "latent = store[key]  # [C, h, w]"
    yield ""
    yield f'dataset = latentcli.LatentDataset("{url}")  # for a DataLoader'
    yield "```"
    yield ""
    yield (
        "`latentcli decode` makes pictures of them again, and `latentcli inspect` describes them."
        " Shards are downloaded when they are first used, and kept."
    )
    yield ""
    yield from _without(facts)


def _without(facts: Facts) -> Iterator[str]:
    """How any other program reads the shards."""
    yield "Without latentcli:"
    yield ""
    yield "```python"
    if facts["format"] == "webdataset":
        folder = (
            f"https://huggingface.co/datasets/{facts['repo'] or PLACEHOLDER}/resolve/main/shards"
        )
        yield "import webdataset"
        yield "from safetensors.torch import load"
        yield ""
        yield f'samples = webdataset.WebDataset("{folder}/000000.tar", shardshuffle=False)'
        yield "for sample in samples:"
        yield '    tensors = load(sample["latent.safetensors"])'
    else:
        yield "from huggingface_hub import hf_hub_download"
        yield "from safetensors.torch import load_file"
        yield ""
        repo = facts["repo"] or PLACEHOLDER
        yield f'file = "shards/{facts["first_shard"]}"'
        yield f'path = hf_hub_download("{repo}", file, repo_type="dataset")'
        yield "latents = load_file(path)  # by <key>/<part>"
    yield "```"


def _making(facts: Facts) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield (
        f"By {facts['tool']}, with a command like this one. It was rebuilt from `manifest.json`,"
        " and has the names of the sources without their paths."
    )
    yield ""
    yield "```console"
    yield f"$ {shlex.join(['latentcli', *facts['command']])}"
    yield "```"


def _table(title: str, *rows: tuple[str, str | None]) -> Iterator[str]:
    """A section of names and values; those without a value are left out."""
    yield f"## {title}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {_cell(value)} |" for name, value in rows if value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """Words of a person as Markdown shows them: no HTML, no headings."""
    return html.escape(" ".join(text.split()), quote=False)


def _yaml(text: str) -> str:
    """A text as YAML has it: bare where that is safe, else as JSON, which YAML reads."""
    bare = re.fullmatch(r"[A-Za-z][\w.-]*", text) and text.lower() not in ("null", "true", "false")
    return text if bare else json.dumps(text)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"
