"""A checkpoint's name in, the path of its weights out: which of the places holds them.

Only config.json and the weights file are ever fetched; nothing from a repository is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    is_offline_mode,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from latentcli.core.errors import UsageError, WeightsError
from latentcli.models.presets import Preset

VARIABLE = "LATENTCLI_WEIGHTS"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SUFFIXES = (".safetensors", ".pth", ".pt")
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What to look for."""

    name: str
    """Preset name or Hub id, as folders under $LATENTCLI_WEIGHTS are named."""
    repo: str | None = None
    file: str = WEIGHTS
    revision: str = "main"
    bundled: str | None = None
    needs_config: bool = True
    """Whether config.json is needed: no preset says what the network is."""

    @classmethod
    def of_preset(cls, p: Preset) -> Self:
        return cls(p.name, p.repo, p.file, p.revision, p.bundled, needs_config=False)


@dataclass(frozen=True, slots=True)
class Located:
    """A weights file on this machine and where it came from."""

    weights_path: Path
    config: dict[str, Any] | None
    """config.json beside it, where there is one."""
    origin: str
    """flag, folder, env, bundled, cached or hub."""
    repo: str | None = None
    revision: str | None = None
    """Commit of the repository."""


@dataclass(frozen=True, slots=True)
class _Search:
    wanted: Checkpoint
    revision: str
    cache_dir: str | None
    looked: list[str]
    """Every place looked at in vain, and why, for the error."""


def locate(
    wanted: Checkpoint,
    *,
    weights: str | Path | None = None,
    revision: str | None = None,
    cache_dir: str | None = None,
) -> Located:
    """Where the weights are: `weights`, $LATENTCLI_WEIGHTS, the package, the cache, then the Hub.

    A `revision` (branch, tag or commit) is found only where revisions are known: cache and Hub.
    `cache_dir` replaces the Hugging Face cache. WeightsError where they are in none of the places.
    """
    if revision is not None and (weights is not None or wanted.repo is None):
        other = "a weights path" if weights is not None else f"{wanted.name}, which is bundled,"
        raise UsageError(f"{other} has no revisions: leave out the revision {revision!r}.")
    if weights is not None:
        return at_path(Path(weights), wanted.file, "flag")
    search = _Search(wanted, revision or wanted.revision, cache_dir, [])
    for place in _PLACES if revision is None else _PLACES_WITH_REVISIONS:
        if found := place(search):
            return found
    raise _absent(search)


def weights_status(preset: Preset) -> str:
    """bundled, cached ($LATENTCLI_WEIGHTS or the cache), hub, or missing; asks no network."""
    wanted = Checkpoint.of_preset(preset)
    search = _Search(wanted, wanted.revision, None, [])
    if _in_package(search):
        return "bundled"
    try:
        if _in_environment(search) or _in_cache(search):
            return "cached"
    except WeightsError:
        return "missing"
    return "missing" if is_offline_mode() or wanted.repo is None else "hub"


def at_path(path: Path, file: str = WEIGHTS, origin: str = "folder") -> Located:
    """The weights at `path`: a file, or a folder that holds `file` or one other .safetensors.

    A config.json counts only beside a file under the name that a Hub repository gives it: any
    other file may share its folder with strangers.
    """
    path = path.expanduser()
    if not path.exists():
        raise WeightsError(f"There are no weights at {path}: no such file or folder.")
    chosen = _in_folder(path, file) if path.is_dir() else path
    if chosen.suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} is no weights file: it must end in {', '.join(SUFFIXES)}, or be a folder"
            f" with {file}."
        )
    as_published = path.is_dir() or path.name == file
    return Located(chosen, _read_config(chosen) if as_published else None, origin)


def _in_folder(folder: Path, file: str) -> Path:
    if (folder / file).is_file():
        return folder / file
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    found = f"{len(others)} other .safetensors files" if others else "no .safetensors file"
    raise WeightsError(f"The folder {folder} has no {file} and {found}; it must hold {file}.")


def _read_config(weights_path: Path) -> dict[str, Any] | None:
    path = weights_path.parent / CONFIG
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} holds {type(config).__name__}; it must be a JSON object.")
    return config


def _in_environment(search: _Search) -> Located | None:
    root = os.environ.get(VARIABLE)
    if not root:
        search.looked.append(f"{VARIABLE}: not set")
        return None
    wanted = search.wanted
    names = dict.fromkeys(name for name in (wanted.name, wanted.repo) if name)
    for name in names:
        folder = Path(root).expanduser() / name
        if folder.is_dir():
            return at_path(folder, wanted.file, "env")
        search.looked.append(f"{VARIABLE}: no folder {folder}")
    return None


def _in_package(search: _Search) -> Located | None:
    if search.wanted.bundled is None:
        return None
    folder = BUNDLED / search.wanted.bundled
    if (folder / search.wanted.file).is_file():
        return at_path(folder, search.wanted.file, "bundled")
    search.looked.append(f"the package: no {folder / search.wanted.file}; reinstall latentcli")
    return None


def _in_cache(search: _Search) -> Located | None:
    wanted = search.wanted
    if wanted.repo is None:
        return None
    path = try_to_load_from_cache(
        wanted.repo, wanted.file, cache_dir=search.cache_dir, revision=search.revision
    )
    if isinstance(path, str):
        found = _of_snapshot(Path(path), wanted.repo, "cached")
        if found.config is not None or not wanted.needs_config:
            return found
    what = f"{CONFIG} and {wanted.file}" if wanted.needs_config else wanted.file
    search.looked.append(
        f"the Hugging Face cache: no {what} of revision {search.revision} in {_cache(search)}"
    )
    return None


def _of_snapshot(path: Path, repo: str, origin: str) -> Located:
    return Located(path, _read_config(path), origin, repo, revision=path.parent.name)


def _cache(search: _Search) -> Path:
    folder = f"models--{(search.wanted.repo or '').replace('/', '--')}"
    return Path(search.cache_dir or constants.HF_HUB_CACHE) / folder


def _on_hub(search: _Search) -> Located | None:
    if search.wanted.repo is None:
        return None
    if is_offline_mode():
        search.looked.append("the Hub: not asked, offline mode is on (HF_HUB_OFFLINE)")
        return None
    try:
        return _download(search, search.wanted.repo)
    # The client raises its own errors, its HTTP library's and its download engine's.
    except Exception as error:
        reason = _reason(error, search.revision)
        search.looked.append(f"the Hub, {constants.ENDPOINT}/{search.wanted.repo}: {reason}")
        raise _absent(search) from error


def _download(search: _Search, repo: str) -> Located:
    wanted, revision = search.wanted, search.revision
    needed = [CONFIG, wanted.file] if wanted.needs_config else [wanted.file]
    # Asked once, without the client's retries: a cluster node without network must not wait.
    for name in needed:
        get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))
    path = Path(hf_hub_download(repo, wanted.file, revision=revision, cache_dir=search.cache_dir))
    try:
        hf_hub_download(repo, CONFIG, revision=path.parent.name, cache_dir=search.cache_dir)
    except EntryNotFoundError:
        if wanted.needs_config:
            raise
    return _of_snapshot(path, repo, "hub")


_Place = Callable[[_Search], Located | None]
_PLACES: tuple[_Place, ...] = (_in_environment, _in_package, _in_cache, _on_hub)
_PLACES_WITH_REVISIONS: tuple[_Place, ...] = (_in_cache, _on_hub)


def _reason(error: Exception, revision: str) -> str:
    if isinstance(error, GatedRepoError):
        return "gated; accept its terms on its page, then `hf auth login` or set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one that HF_TOKEN does not open"
    if isinstance(error, RevisionNotFoundError):
        return f"no revision {revision}"
    if isinstance(error, EntryNotFoundError) and isinstance(error, HfHubHTTPError):
        return f"no file {Path(error.response.url.path).name} at revision {revision}"
    if isinstance(error, HfHubHTTPError):
        return f"it answered HTTP {error.response.status_code}"
    lines = str(error).strip().splitlines() or ["no details"]
    return f"not reached ({type(error).__name__}: {lines[0]})"


def _absent(search: _Search) -> WeightsError:
    wanted = search.wanted
    files = f"{CONFIG} and {wanted.file}" if wanted.needs_config else wanted.file
    source = f" ({files} of {wanted.repo}, revision {search.revision})" if wanted.repo else ""
    return WeightsError(
        "\n".join(
            [
                f"The weights of {wanted.name} were not found{source}. Looked at:",
                *(f"  - {place}" for place in search.looked),
                "Provide them in one of these ways:",
                *(f"  {n}. {way}" for n, way in enumerate(_ways(search), start=1)),
            ]
        )
    )


def _ways(search: _Search) -> list[str]:
    wanted = search.wanted
    ways = [
        f"--weights PATH: the weights file, or a folder with {wanted.file} and {CONFIG}",
        f"{VARIABLE}=FOLDER, with the files FOLDER/{wanted.name}/{wanted.file} and"
        f" FOLDER/{wanted.name}/{CONFIG}",
    ]
    if wanted.repo is None:
        return ways
    pin = "" if search.revision == "main" else f" --revision {search.revision}"
    return [
        *ways,
        f"on a machine with network, `hf download {wanted.repo} {CONFIG} {wanted.file}{pin}`, then"
        f" copy its cache folder to {_cache(search)} (or set HF_HOME to a copy of its cache)",
    ]
