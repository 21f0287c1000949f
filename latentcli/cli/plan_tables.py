"""Builds the lines and the table that show a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from latentcli.cli import words
from latentcli.core.byte_size import byte_words

if TYPE_CHECKING:
    from rich.console import RenderableType

NETWORK = "model.config."
"""Fields of a spec that say how a network is built."""


def plan_tables(document: Mapping[str, Any]) -> Iterable[RenderableType]:
    """The plan: a sentence, a table of reasons, what it costs, and where it would go."""
    noun = noun_of(document)
    listed = packed_noun(document) or noun
    if document["refused"]:
        yield from refusal(document)
        return
    if not document["shards"]:
        yield f"Nothing to encode: {words.count(document['inputs'], listed)}, all done before."
    else:
        about = "about " if document["inputs_are_guess"] else ""
        yield (
            f"Would encode {about}{words.count(document['to_encode'], noun)} with"
            f" {document['model']}."
        )
    yield reasons_table(document["reasons"], f"{packed_noun(document) or 'input'}s")
    if document["texts"]:
        shards = words.count(document["texts"], "shard")
        yield f"Captions or fields of {shards} have changed; they are updated without encoding."
    if document["filtered"]:
        yield (
            f"The filters leave out {document['filtered']:,} of the"
            f" {words.count(document['looked_at'], 'input')} that were looked at."
        )
    yield from words.left_out(document)
    yield from cost(document)
    yield f"Store: {document['store']} ({words.count(document['shards'], 'shard')} to write)"


def noun_of(document: Mapping[str, Any]) -> str:
    """What is encoded."""
    return "clip" if document["media"] == "clips" else "image"


def packed_noun(document: Mapping[str, Any]) -> str | None:
    """What one input is called that holds many samples; None where inputs are files."""
    if not document["tars"]:
        return None
    return "tar" if document["kind"] == "tars" else f"{document['kind']} file"


def refusal(document: Mapping[str, Any]) -> Iterable[str]:
    """Why encode would not touch the store that is there."""
    yield f"{document['store']} was made with another spec; encode would refuse to add to it:"
    network = [item for item in document["refused"] if item["field"].startswith(NETWORK)]
    if len(network) > 1:  # how networks differ says little to whoever gave another model
        yield f"  {NETWORK}*: {len(network)} fields, as of another model"
    for item in document["refused"]:
        if len(network) > 1 and item in network:
            continue
        yield f"  {item['field']}: {item['there']!r} in the store, {item['now']!r} now"
    yield "Use the same options, or another output folder (-o)."


def reasons_table(reasons: Mapping[str, Mapping[str, Any]], noun: str) -> RenderableType:
    """A row for each reason that some inputs have."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column(noun, justify="right")
    table.add_column("why")
    table.add_column("for example")
    for reason in reasons.values():
        if reason["inputs"]:
            examples = ", ".join(reason["examples"][:2])
            table.add_row(f"{reason['inputs']:,}", reason["why"], examples)
    return table


def cost(document: Mapping[str, Any]) -> Iterable[str]:
    """Bytes and time, where they are known."""
    if not document["shards"]:
        return
    if document["bytes"] is not None:
        yield f"To be written: about {byte_words(document['bytes'])}."
    probe = document["probe"]
    if probe is None:
        return
    devices = words.count(document["devices"], "device")
    yield (
        f"Time: about {words.duration(probe['seconds'])} on {devices}"
        f" ({probe['device_hours']:.2f} device-hours), from"
        f" {words.count(probe['inputs'], noun_of(document))} at"
        f" {words.rate(probe['images_per_second'])}."
    )
