"""Finds the weights file of a checkpoint: a given path, the package, the cache, or the Hub.

Only config.json and the weights file are ever fetched; nothing from a repository is run. The Hub's
client takes long to load, so only what asks it or looks into its cache does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from latentcli.core.errors import NoWeightsFile, UsageError, WeightsError
from latentcli.core.near_names import missing_weights
from latentcli.models.presets import Preset

VARIABLE = "LATENTCLI_WEIGHTS"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
USUAL = (WEIGHTS, "diffusion_pytorch_model.safetensors")
"""Names under which repositories keep their weights: data-archetype's and diffusers'."""
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
HALVES = ("encoder", "decoder")
LISTED = 8
"""How many files or tensors an error lists."""
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What to look for."""

    name: str
    """Preset name or Hub id, as folders under $LATENTCLI_WEIGHTS are named."""
    repo: str | None = None
    """Hub repository; None of a checkpoint that is bundled, or not published at all."""
    file: str = WEIGHTS
    """The weights file; a repository without a preset may have any of USUAL."""
    revision: str = "main"
    bundled: str | None = None
    subfolder: str = ""
    """Folder of the repository that the files are in."""
    needs_config: bool = True
    """Whether config.json is needed: no preset says what the network is."""
    gated: bool = False
    """Whether the repository asks for a login and for its terms to be accepted."""
    instead: str = "fcdm_nano"
    """The bundled model that can be tried where the weights are not at hand; "" for none."""

    @classmethod
    def of_preset(cls, p: Preset) -> Self:
        found = cls(p.name, p.repo, p.file, p.revision, p.bundled, p.subfolder, needs_config=False)
        return replace(found, gated=p.gated)

    @property
    def files(self) -> tuple[str, ...]:
        """Names that the weights may have in the repository, in the order in which to ask."""
        return USUAL if self.needs_config and self.file in USUAL else (self.file,)

    def in_repo(self, name: str) -> str:
        """A file's path in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name


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
    also: tuple[Path, ...] = ()
    """Further files of the same checkpoint: a decoder kept apart from its encoder."""


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
        why = "bundled" if wanted.bundled else "not published"
        other = "a weights path" if weights is not None else f"{wanted.name}, which is {why},"
        raise UsageError(f"{other} has no revisions: leave out the revision {revision!r}.")
    if weights is not None:
        return at_path(Path(weights), wanted.file, "flag", wanted.subfolder, wanted.name)
    search = _Search(wanted, revision or wanted.revision, cache_dir, [])
    for place in _PLACES if revision is None else _PLACES_WITH_REVISIONS:
        if found := place(search):
            return found
    raise _absent(search)


def at_hand(preset: Preset) -> Located | None:
    """The weights that `locate` would find on this machine, or None; asks no network.

    WeightsError where a folder meant for them holds something else.
    """
    wanted = Checkpoint.of_preset(preset)
    search = _Search(wanted, wanted.revision, None, [])
    return next((found for place in _HERE if (found := place(search))), None)


def weights_status(preset: Preset) -> str:
    """bundled, cached ($LATENTCLI_WEIGHTS or the cache), hub, or missing; asks no network."""
    from huggingface_hub import is_offline_mode

    try:
        found = at_hand(preset)
    except WeightsError:
        return "missing"
    if found:
        return "bundled" if found.origin == "bundled" else "cached"
    return "missing" if is_offline_mode() or preset.repo is None else "hub"


def at_path(
    path: Path, file: str = WEIGHTS, origin: str = "folder", subfolder: str = "", name: str = ""
) -> Located:
    """The weights at `path`: a file, or a folder that holds `file` or a file of a usual name.

    Failing those, a folder may hold one .safetensors; or one .pth for the encoder and one for the
    decoder, so named, those of the preset `name` first; or one file that torch saved.

    A config.json counts only beside a file under the name that a Hub repository gives it: any
    other file may share its folder with strangers.
    """
    path = path.expanduser()
    if not path.exists():
        raise missing_weights(path)
    if path.is_dir() and subfolder and (path / subfolder / file).is_file():
        path = path / subfolder
    chosen, *also = _in_folder(path, file, name) if path.is_dir() else [path]
    if chosen.suffix not in SUFFIXES:
        raise NoWeightsFile(
            f"{path} is not a weights file: its name must end in {', '.join(SUFFIXES)}, or be a"
            f" folder with {file}."
        )
    as_published = path.is_dir() or path.name == file
    config = _read_config(chosen) if as_published else None
    return Located(chosen, config, origin, also=tuple(also))


def _in_folder(folder: Path, file: str, name: str) -> list[Path]:
    for usual in (file, *USUAL):
        if (folder / usual).is_file():
            return [folder / usual]
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others
    for start in (f"{name}_", "*"):
        halves = [sorted(folder.glob(f"{start}{half}*.pth")) for half in HALVES]
        if not others and all(len(found) == 1 for found in halves):
            return [path for found in halves for path in found]
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLES)
    if not others and len(pickles) == 1:
        return pickles
    raise WeightsError(_undecided(folder, file, [*others, *pickles]))


def _undecided(folder: Path, file: str, others: list[Path]) -> str:
    if not others:
        return f"The folder {folder} has no {file} and no other weights file; it must hold {file}."
    return (
        f"The folder {folder} has no {file}, and it is not clear which of its other weights files"
        f" is meant: {some([path.name for path in others])}. Name the file, or keep {file} there."
    )


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


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
            return at_path(folder, wanted.file, "env", wanted.subfolder, wanted.name)
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
    from huggingface_hub import try_to_load_from_cache

    for file in wanted.files:
        path = try_to_load_from_cache(
            wanted.repo,
            wanted.in_repo(file),
            cache_dir=search.cache_dir,
            revision=search.revision,
        )
        if isinstance(path, str):
            found = _of_snapshot(Path(path), wanted, "cached")
            if found.config is not None or not wanted.needs_config:
                return found
    search.looked.append(
        f"the Hugging Face cache: no {_files(wanted)} of revision {search.revision} in"
        f" {_cache(search)}"
    )
    return None


def _of_snapshot(path: Path, wanted: Checkpoint, origin: str) -> Located:
    return Located(path, _read_config(path), origin, wanted.repo, _commit(path, wanted))


def _commit(path: Path, wanted: Checkpoint) -> str:
    """The cache keeps a repository's files in a folder named after the commit."""
    return (path.parent.parent if wanted.subfolder else path.parent).name


def _cache(search: _Search) -> Path:
    from huggingface_hub import constants

    folder = f"models--{(search.wanted.repo or '').replace('/', '--')}"
    return Path(search.cache_dir or constants.HF_HUB_CACHE) / folder


def _on_hub(search: _Search) -> Located | None:
    if search.wanted.repo is None:
        return None
    from huggingface_hub import constants, is_offline_mode

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
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    wanted, revision = search.wanted, search.revision

    # Asked once, without the client's retries: a cluster node without network must not wait.
    def ask(name: str) -> None:
        get_hf_file_metadata(hf_hub_url(repo, wanted.in_repo(name), revision=revision))

    def download(name: str, revision: str) -> Path:
        file = wanted.in_repo(name)
        return Path(hf_hub_download(repo, file, revision=revision, cache_dir=search.cache_dir))

    if wanted.needs_config:
        ask(CONFIG)
    path = download(_first(wanted.files, ask), revision)
    try:
        download(CONFIG, _commit(path, wanted))
    except EntryNotFoundError:
        if wanted.needs_config:
            raise
    return _of_snapshot(path, wanted, "hub")


def _first(names: Sequence[str], ask: Callable[[str], None]) -> str:
    """The first name that the repository has; where it has none, the last one's error."""
    from huggingface_hub.errors import EntryNotFoundError

    *others, last = names
    for name in others:
        with suppress(EntryNotFoundError):
            ask(name)
            return name
    ask(last)
    return last


_Place = Callable[[_Search], Located | None]
_HERE: tuple[_Place, ...] = (_in_environment, _in_package, _in_cache)
_PLACES: tuple[_Place, ...] = (*_HERE, _on_hub)
_PLACES_WITH_REVISIONS: tuple[_Place, ...] = (_in_cache, _on_hub)


def _reason(error: Exception, revision: str) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "gated; accept its terms on its page, then `hf auth login` or set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one that HF_TOKEN may not read"
    if isinstance(error, RevisionNotFoundError):
        return f"no revision {revision}"
    if isinstance(error, EntryNotFoundError) and isinstance(error, HfHubHTTPError):
        return f"no file {Path(error.response.url.path).name} at revision {revision}"
    if isinstance(error, HfHubHTTPError):
        return f"it answered HTTP {error.response.status_code}"
    lines = str(error).strip().splitlines() or ["no details"]
    return f"not reached ({type(error).__name__}: {lines[0]})"


def _files(wanted: Checkpoint) -> str:
    weights = " or ".join(wanted.files)
    return f"{CONFIG} and {weights}" if wanted.needs_config else weights


def _absent(search: _Search) -> WeightsError:
    wanted = search.wanted
    source = (
        f" ({_files(wanted)} of {wanted.repo}, revision {search.revision})" if wanted.repo else ""
    )
    if not wanted.repo and not wanted.bundled:
        source = ": its checkpoint is not published"
    return WeightsError(
        "\n".join(
            [
                f"The weights of {wanted.name} were not found{source}. Looked at:",
                *(f"  - {place}" for place in search.looked),
                "Provide them in one of these ways:",
                *(f"  {n}. {way}" for n, way in enumerate(_ways(search), start=1)),
                *_instead(wanted),
            ]
        )
    )


def _instead(wanted: Checkpoint) -> list[str]:
    """What works without a download."""
    if wanted.bundled or not wanted.instead:
        return []
    return [f"To try latentcli without a download: --model {wanted.instead} is bundled."]


def _ways(search: _Search) -> list[str]:
    wanted = search.wanted
    # Whoever has a checkpoint that is on no Hub has no config.json for it either.
    names = [wanted.file, CONFIG] if wanted.repo or wanted.needs_config else [wanted.file]
    files = [f"FOLDER/{wanted.name}/{name}" for name in names]
    ways = [
        f"--weights PATH: the weights file, or a folder with {' and '.join(names)}",
        f"{VARIABLE}=FOLDER, with the file{'s'[: len(files) - 1]} {' and '.join(files)}",
    ]
    if wanted.repo is None:
        return ways
    pin = "" if search.revision == "main" else f" --revision {search.revision}"
    other = "".join(f" (or {name}, if it has that)" for name in wanted.files[1:])
    login = (
        "accept the terms on the repository's page and run `hf auth login` (it is gated), then "
        if wanted.gated
        else ""
    )
    return [
        *ways,
        f"on a machine with network, {login}`hf download {wanted.repo} {wanted.in_repo(CONFIG)}"
        f" {wanted.in_repo(wanted.file)}{pin}`{other}, then"
        f" copy its cache folder to {_cache(search)} (or set HF_HOME to a copy of its cache)",
    ]
