"""Writes and reads manifest.json, hashes a spec, and says how two specs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from latentcli.core.errors import StoreError
from latentcli.shards.layout import MANIFEST, SUFFIXES
from latentcli.shards.storage import json_files as documents
from latentcli.shards.storage.atomic_write import FileDigest, atomic_write
from latentcli.shards.storage.paths import AnyPath

FORMAT_VERSION = 1
STATUSES = ("running", "complete")


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of a spec; the order of its fields does not matter."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new value) of each field that differs; None where it is absent."""
    left, right = _flat(_plain(old)), _flat(_plain(new))
    names = sorted(left.keys() | right.keys())
    pairs = ((name, left.get(name), right.get(name)) for name in names)
    return [(name, a, b) for name, a, b in pairs if a != b]


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(spec))
    return plain


def _flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all units of a store."""

    inputs: int = 0
    encoded: int = 0
    failed: int = 0
    shards: int = 0
    bytes: int = 0
    """Of the shards together."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A store's own description. It holds no time, no host name and no path of the store."""

    tool: str
    """latentcli and its version."""
    spec: Mapping[str, Any]
    """The resolved job: everything that the shards' bytes depend on."""
    model: Mapping[str, Any]
    """Name, revision, sha256 of the weights."""
    latent_space: str
    """Full id with the state, such as flux2#whitened."""
    latent: Mapping[str, Any]
    """Geometry: channels, downscale, size_divisor."""
    preprocessing: Mapping[str, Any]
    status: str = "running"
    totals: Totals = Totals()
    channels: Mapping[str, Any] | None = None
    """Per-channel mean and std of the stored latents, lists of c floats."""
    self_check: Mapping[str, Any] | None = None
    format_version: int = FORMAT_VERSION
    spec_hash: str = field(default="")
    """Of `spec`; filled in where it is not given."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}, allowed are {', '.join(STATUSES)}")
        expected = spec_hash(self.spec)
        if self.spec_hash not in ("", expected):
            raise ValueError(
                "the spec was changed: it does not have the hash that stands beside it"
            )
        object.__setattr__(self, "spec_hash", expected)

    @property
    def format(self) -> str:
        """Of the shards: a key of layout.SUFFIXES."""
        return str(self.spec.get("write", {}).get("format", "safetensors"))

    @property
    def suffix(self) -> str:
        """Of the shards' file names."""
        return SUFFIXES.get(self.format, ".safetensors")

    @property
    def tars(self) -> bool:
        """Whether an input is a tar of samples, and so a unit, rather than one picture or clip."""
        return bool(self.spec.get("tars", False))

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the file."""
        totals = {item.name: getattr(self.totals, item.name) for item in fields(Totals)}
        return {name: getattr(self, name) for name in _FIELDS} | {"totals": totals}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The manifest; ValueError says what is wrong with the document."""
        values = {name: documents.field(document, name, *kinds) for name, kinds in _FIELDS.items()}
        totals = {
            item.name: documents.field(values["totals"], item.name, int) for item in fields(Totals)
        }
        return cls(**values | {"totals": Totals(**totals)})


_FIELDS: dict[str, tuple[type | None, ...]] = {
    "format_version": (int,),
    "tool": (str,),
    "status": (str,),
    "spec_hash": (str,),
    "latent_space": (str,),
    "latent": (dict,),
    "model": (dict,),
    "preprocessing": (dict,),
    "totals": (dict,),
    "self_check": (dict, None),
    "spec": (dict,),
    "channels": (dict, None),
}


def write_manifest(store: AnyPath, manifest: Manifest) -> FileDigest:
    """Writes manifest.json atomically."""
    text = documents.pretty(manifest.to_json())
    return atomic_write(store / MANIFEST, [text.encode() + b"\n"])


def read_manifest(store: AnyPath) -> Manifest:
    """A store's manifest; StoreError where there is none, or it is damaged or too new."""
    path = store / MANIFEST
    if not path.is_file():
        what = "it has no manifest.json" if store.is_dir() else "there is no such folder"
        raise StoreError(f"{store} is no latent store: {what}.")
    document = documents.load_object(path)
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{store} has store format {version}, this latentcli reads up to {FORMAT_VERSION}:"
            " update latentcli."
        )
    try:
        return Manifest.from_json(document)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
