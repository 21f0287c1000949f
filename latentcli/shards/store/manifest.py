"""Writes and reads manifest.json, hashes a spec, and says how two specs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.near_names import missing_store
from latentcli.core.types import QUANTISED_DTYPES
from latentcli.shards.layout import MANIFEST, SUFFIXES
from latentcli.shards.storage.atomic_write import FileDigest, atomic_write
from latentcli.shards.storage.json_fields import from_object, later
from latentcli.shards.storage.json_files import load_object, pretty
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.place import not_a_store

FORMAT_VERSION = 2
"""2: sources are relative, units may be empty, and samples have fields. 1 is read and gone on
with."""
QUANTISED_VERSION = 3
"""Of stores in int8 or fp8, whose values are not what their tensors hold; all others stay at 2."""
STATUSES = ("running", "complete")


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of a spec; the order of its fields does not matter."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new value) of each field that differs; None where it is absent."""
    left, right = (_flat(json.loads(json.dumps(spec))) for spec in (old, new))
    names = sorted(left.keys() | right.keys())
    pairs = ((name, left.get(name), right.get(name)) for name in names)
    return [(name, a, b) for name, a, b in pairs if a != b]


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
    filtered: int = later(0)
    """Inputs that a filter of the job refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A store's own description. It holds no time, no host name and no path of the store."""

    format_version: int = FORMAT_VERSION
    tool: str
    """latentcli and its version."""
    status: str = "running"
    spec_hash: str = ""
    """Of `spec`; filled in where it is not given."""
    latent_space: str
    """Full id with the state, such as flux2#whitened."""
    latent: Mapping[str, Any]
    """Geometry: channels, downscale, size_divisor."""
    model: Mapping[str, Any]
    """Name, revision, sha256 of the weights."""
    preprocessing: Mapping[str, Any]
    totals: Totals = Totals()
    self_check: Mapping[str, Any] | None = None
    spec: Mapping[str, Any]
    """The resolved job: everything that the shards' bytes depend on."""
    channels: Mapping[str, Any] | None = None
    """Per-channel mean and std of the stored latents, lists of c floats."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}, allowed are {', '.join(STATUSES)}")
        expected = spec_hash(self.spec)
        if self.spec_hash not in ("", expected):
            raise ValueError(
                "the spec was changed: it does not have the hash that stands beside it"
            )
        object.__setattr__(self, "spec_hash", expected)
        latents = self.spec.get("latents")
        if isinstance(latents, Mapping) and latents.get("dtype") in QUANTISED_DTYPES:
            object.__setattr__(self, "format_version", QUANTISED_VERSION)

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
        """Plain values, in the order of the fields, which is that of the file."""
        return asdict(self)


def write_manifest(store: AnyPath, manifest: Manifest) -> FileDigest:
    """Writes manifest.json atomically."""
    text = pretty(manifest.to_json())
    return atomic_write(store / MANIFEST, [text.encode() + b"\n"])


def read_manifest(store: AnyPath) -> Manifest:
    """A store's manifest; StoreError where there is none, or it is damaged or too new."""
    path = store / MANIFEST
    if not path.is_file():
        if not store.is_dir():
            raise missing_store(store)
        raise not_a_store(store)
    document = load_object(path)
    version = document.get("format_version")
    if isinstance(version, int) and version > QUANTISED_VERSION:
        raise StoreError(
            f"{store} has store format {version}, this latentcli reads up to {QUANTISED_VERSION}:"
            " update latentcli."
        )
    try:
        return from_object(Manifest, document)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
