"""Reads and checks the TOML files that describe published checkpoints; it loads no torch."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.types import NORMAL_STATES, LatentSpec
from latentcli.core.words import listed
from latentcli.models.config_checks import SWITCH, WHOLE, Check, is_number

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WELL_KNOWN = {
    "sd1": """sd sd1 sdvae vae sd14 sd15 sd2 sd21 sdv1 sdv14 sdv15 sdv2 sdvaeftmse sdvaeftema
        vaeftmse stablediffusion stablediffusion15 stablediffusionv15 stablediffusion2
        stablediffusion21""",
    "sdxl": """xl sdxlvae sdxlbase sdxl10 sdxlturbo sdxlvaefp16fix stablediffusionxl
        stablediffusionxlbase10""",
    "sd3": "sd3 sd35 sd3vae sd3medium sd35medium sd35large stablediffusion3 stablediffusion35",
    "flux1": "flux flux1 fluxvae fluxdev fluxschnell flux1vae flux1dev flux1schnell",
    "flux2": "flux flux2vae flux2dev flux2klein fluxklein",
    "svd": "svdxt svdvae stablevideodiffusion",
}
"""Latent space -> the models of it that people name, without signs between letters and digits."""
EXTRAS = {"kl": "diffusers"}
"""Family -> the extra that its network needs, which is also the module that it brings."""
PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Preset:
    """One published checkpoint: its network, its weights, its latents and its terms."""

    name: str
    """The TOML file's stem."""
    family: str
    """Which network structure, a module of latentcli.models."""
    summary: str
    """What it is for, in one line."""
    licence: str
    card: str
    """Where its own description is."""
    config: Mapping[str, Any]
    """The config.json keys that the network is built from."""
    channels: int
    downscale: int
    size_divisor: int
    space: str
    """Latent space id."""
    parameters: int | None = None
    """Trainable values of the network; every preset that ships says it."""
    state: str = "whitened"
    """What its latents are: whitened, or scaled."""
    paper: str = ""
    repo: str | None = None
    """Hub repository, org/name."""
    file: str = "model.safetensors"
    """The weights file in the repository or folder."""
    subfolder: str = ""
    """Folder of the repository that the file is in."""
    revision: str = "main"
    """Branch, tag or commit of the repository."""
    gated: bool = False
    """Whether the repository asks for a login and for its terms to be accepted."""
    sha256: str | None = None
    """Digest of the weights file, where it is known."""
    bundled: str | None = None
    """Folder of latentcli/models/bundled that holds the weights."""
    image_range: tuple[float, float] = (-1.0, 1.0)
    """Pixel values that the network takes and gives."""
    can_encode: bool = True
    can_decode: bool = True
    psnr_floor: float = 18.0
    """dB; a real photograph that comes back worse means wrong range, whitening or weights."""
    published: Mapping[str, Any] | None = None
    """Figures that its authors state, with their source. Nothing here is measured by us."""

    @property
    def extra(self) -> str | None:
        """The extra of latentcli without which its network cannot be built."""
        return EXTRAS.get(self.family)

    @property
    def spec(self) -> LatentSpec:
        """Geometry and latent space id."""
        return LatentSpec(self.channels, self.downscale, self.size_divisor, self.space, self.state)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _repository(value: Any) -> bool:
    return _text(value) and value.count("/") == 1


def _file_name(value: Any) -> bool:
    return _text(value) and Path(value).name == value


def _digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


_TEXT: Check = (_text, "a text")
_TABLE: Check = (lambda value: isinstance(value, dict), "a table")
# Every family maps to and from this range itself; another one here would change nothing.
_RANGE: Check = (lambda value: bool(value == [-1, 1]), "[-1, 1], as all models take and give")
# TOML table -> key -> what its value must be. The empty table is the top of the file.
_KEYS: dict[str, dict[str, Check]] = {
    "": {
        "family": _TEXT,
        "summary": _TEXT,
        "licence": _TEXT,
        "card": _TEXT,
        "paper": _TEXT,
        "parameters": WHOLE,
        "config": _TABLE,
        "published": _TABLE,
    },
    "weights": {
        "repo": (_repository, "org/name"),
        "file": (_file_name, "a file name without a folder"),
        "subfolder": (_file_name, "a folder name"),
        "revision": (_text, "a branch, tag or commit"),
        "gated": SWITCH,
        "sha256": (_digest, "64 hexadecimal digits in lower case"),
        "bundled": (_text, "a folder name"),
    },
    "latents": {
        "space": _TEXT,
        "state": (NORMAL_STATES.__contains__, " or ".join(NORMAL_STATES)),
        "channels": WHOLE,
        "downscale": WHOLE,
        "size_divisor": WHOLE,
    },
    "images": {"range": _RANGE},
    "capabilities": {"can_encode": SWITCH, "can_decode": SWITCH},
    "self_check": {"psnr_floor": (is_number, "a number of dB")},
}
_REQUIRED = {item.name for item in fields(Preset) if item.default is MISSING}
_FIELDS = {"range": "image_range"}
"""A key's field of the Preset, where it has another name."""


def presets_folder() -> Path:
    """configs/models: inside an installed package, beside the package in a checkout."""
    inside = PACKAGE / "configs" / "models"
    return inside if inside.is_dir() else PACKAGE.parent / "configs" / "models"


def preset_names() -> list[str]:
    """Names of all presets, sorted; reads no file."""
    return sorted(path.stem for path in presets_folder().glob("*.toml"))


def load_preset(name_or_path: str | Path) -> Preset:
    """The preset of this name, or of this TOML file; UsageError for anything else."""
    if str(name_or_path).endswith(".toml"):
        return read_preset(Path(name_or_path))
    if name_or_path not in preset_names():
        raise unknown_preset(str(name_or_path))
    return read_preset(presets_folder() / f"{name_or_path}.toml")


def preset_of_repo(repo: str) -> Preset | None:
    """The preset whose weights this Hub repository holds, whatever the case of its letters."""
    presets = map(load_preset, preset_names())
    return next((p for p in presets if (p.repo or "").lower() == repo.lower()), None)


def check_extra(preset: Preset) -> None:
    """UsageError where the extra that a preset needs is not installed; loads nothing."""
    if preset.extra and find_spec(preset.extra) is None:
        raise UsageError(
            f"{preset.name} runs through {preset.extra}, which is not installed:"
            f" pip install 'latentcli[{preset.extra}]'."
        )


def no_encoder(name: str, space: str) -> UsageError:
    """The error for a model that is a decoder alone; it names models for its latents first."""
    presets = [load_preset(name) for name in preset_names()]
    able = [preset for preset in presets if preset.can_encode]
    same_space = [preset for preset in able if preset.space == space]
    names = ", ".join(preset.name for preset in same_space or able)
    same = " into the same latent space" if same_space else ""
    return UsageError(f"{name} has only a decoder and cannot encode; {names} can{same}.")


def check_model_name(text: str) -> None:
    """UsageError for a text that is no preset, .toml path, folder or Hub id; asks no network."""
    if text in preset_names() or text.endswith(".toml") or HUB_ID.fullmatch(text):
        return
    if not text or not Path(text).expanduser().is_dir():
        raise unknown_preset(text)


def unknown_preset(name: str, others: str | None = None) -> UsageError:
    """The error for a model name that is none; `others` says what may be named but for a preset."""
    names = preset_names()
    others = others or (
        "A Hub id (org/name), a folder with config.json and model.safetensors, or a preset's .toml"
        " file works too."
    )
    return UsageError(
        f"There is no model named {name!r}.{of_the_same_latents(name) or did_you_mean(name, names)}"
        f" Presets are: {', '.join(names)}; latentcli models describes them. {others}"
    )


def of_the_same_latents(name: str) -> str:
    """' For its latents there is x.' of a well-known model that is no preset, else nothing."""
    named = _letters(name.rpartition("/")[2])
    spaces = [space for space, names in WELL_KNOWN.items() if named in names.split()]
    presets = [load_preset(one) for one in preset_names()] if spaces else []
    models = [one.name for one in presets if one.space in spaces and one.can_encode]
    told = listed(models, "or") if len(models) > 1 else "".join(models)
    return f" For its latents there is {told}." if models else ""


def _letters(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """' Did you mean x?' where something allowed is close to the word, else nothing.

    Other digits mean something else: flux1 is not flux2 mistyped.
    """
    digits = set(re.findall(r"\d", word))
    alike = [name for name in allowed if set(re.findall(r"\d", name)) == digits]
    close = difflib.get_close_matches(word.lower(), alike, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def read_preset(path: Path) -> Preset:
    """Read and check one preset file; UsageError names the file, the key and what is allowed."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"The preset file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The preset file {path} cannot be read: {error}.") from error
    preset = Preset(name=path.stem, **_values(document, path))
    if not {"repo", "bundled", "file"} & set(document.get("weights", {})):
        raise UsageError(
            f"{path}: [weights] needs repo or bundled, or only file, if the checkpoint is not"
            " published."
        )
    try:
        _ = preset.spec
    except ValueError as error:
        raise UsageError(f"{path}: [latents] {error}.") from None
    return preset


def _values(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    top = {key: value for key, value in document.items() if key not in _KEYS}
    tables = {table: document.get(table, {}) for table in _KEYS if table}
    _refuse_unknown(top, [*_KEYS[""], *tables], "", path)
    values = _table_values(top, "", path)
    for table, content in tables.items():
        if not isinstance(content, dict):
            raise UsageError(f"{path}: {table} is {content!r}, it must be a table [{table}].")
        _refuse_unknown(content, list(_KEYS[table]), table, path)
        values |= _table_values(content, table, path)
    return values


def _refuse_unknown(content: Mapping[str, Any], allowed: list[str], table: str, path: Path) -> None:
    for key in content:
        if key not in allowed:
            where = f" in [{table}]" if table else ""
            raise UsageError(
                f"{path}: unknown key {key!r}{where}.{did_you_mean(key, allowed)}"
                f" Allowed are: {', '.join(allowed)}."
            )


def _table_values(content: Mapping[str, Any], table: str, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (accepts, wanted) in _KEYS[table].items():
        full = f"{table}.{name}" if table else name
        if name not in content:
            if name in _REQUIRED:
                raise UsageError(f"{path}: the key {full} is missing; it must be {wanted}.")
            continue
        value = content[name]
        if not accepts(value):
            raise UsageError(f"{path}: {full} is {value!r}, it must be {wanted}.")
        value = tuple(map(float, value)) if isinstance(value, list) else value
        found[_FIELDS.get(name, name)] = value
    return found
