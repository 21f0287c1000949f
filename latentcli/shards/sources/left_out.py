"""Counts what a scan of sources did not take, by reason."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from latentcli.shards.sources.beside import Beside
from latentcli.shards.sources.other_suffixes import ARCHIVES

NO_SUFFIX = "no_suffix"
OTHERS = "other_suffixes"
REASONS = {
    NO_SUFFIX: ("file without a usual suffix", "files without a usual suffix"),
    OTHERS: ("file with some other suffix", "files with some other suffix"),
    "hidden_files": ("hidden file", "hidden files"),
    "hidden_folders": ("hidden folder", "hidden folders"),
    "unreadable_folders": ("folder that cannot be listed", "folders that cannot be listed"),
    "broken_links": ("broken link", "broken links"),
    "link_loops": ("link to a folder above it", "links to folders above them"),
    "special_files": ("pipe, socket or device", "pipes, sockets or devices"),
    "stores": ("latent store", "latent stores"),
    "reports": ("report", "reports"),
    "output_files": ("file that latentcli wrote", "files that latentcli wrote"),
    "excluded": ("file by --include or --exclude", "files by --include or --exclude"),
    "excluded_folders": ("folder by --exclude", "folders by --exclude"),
    "over_limit": ("input beyond --limit", "inputs beyond --limit"),
}
"""Why something was left out, and the words for one and for several of them.

All other reasons are suffixes with their dot. What has `folders`, `stores` or `reports` in its name
counts folders, whose files are not looked at; all others count files.
"""
ADVICE = {
    "output_files": "--include-output takes them",
    "reports": "--include-output takes their pictures",
}
"""What to do about some reasons."""
ARCHIVE_ADVICE = "archives: unpack them first"
SHOWN = 3
"""Paths that are kept of each reason."""
MOST_SUFFIXES = 1000
"""Different suffixes that are counted; names may end in anything."""

_SUFFIX = re.compile(r"(?=[0-9_+~-]*[a-z])[a-z0-9_+~-]{1,12}")


@dataclass(slots=True)
class LeftOut:
    """What was left out so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """By a reason of REASONS, or by suffix."""
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The first few paths by reason, where they are told."""
    unopened: int = 0
    """Files whose first bytes might have told a picture, and were not read: they were too many."""
    beside: Beside = field(default_factory=Beside)
    """Those of the files counted that may belong to an input."""

    def add(self, reason: str, path: str = "", number: int = 1) -> str:
        """Counts one more file or folder, or several; gives what they are counted under."""
        if reason not in self.counts and len(self.counts) >= MOST_SUFFIXES:
            reason = reason if reason in REASONS else OTHERS
        self.counts[reason] += number
        if path and len(self.examples[reason]) < SHOWN:
            self.examples[reason].append(path)
        return reason

    def add_file(self, reason: str, path: str) -> None:
        """Counts one more file, which may belong to an input."""
        self.beside.note(self.add(reason), path)

    def take_back(self, inputs: Sequence[str]) -> Counter[str]:
        """Counts no longer what belongs to these inputs; gives how many those were, by reason."""
        belonging = self.beside.belonging(inputs)
        self.counts -= belonging
        return belonging

    def to_json(self) -> dict[str, int]:
        """The counts, in the order of the reasons' names."""
        return {reason: self.counts[reason] for reason in sorted(self.counts)}


def in_words(counts: Mapping[str, int], unread: Mapping[str, str], *, advice: bool = True) -> str:
    """What was left out, for a sentence: pictures, archives and odd things; and the rest as a sum.

    `unread` are the suffixes of pictures that cannot be read here, with what to do about it, which
    is told with `advice`.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for suffix in sorted(counts, key=lambda reason: (-counts[reason], reason)):
        if suffix not in REASONS:
            archive = ARCHIVE_ADVICE if suffix in ARCHIVES else None
            groups[unread.get(suffix, archive or "")].append(suffix)
    rest = groups.pop("", [])
    parts = [
        _and([f"{counts[suffix]:,} {suffix}" for suffix in suffixes])
        + (f" ({what})" if advice else "")
        for what, suffixes in groups.items()
    ]
    for reason, (one, several) in REASONS.items():
        if number := counts.get(reason, 0):
            told = f" ({ADVICE[reason]})" if advice and reason in ADVICE else ""
            parts.append(f"{number:,} {one if number == 1 else several}{told}")
    if rest:
        number = sum(counts[suffix] for suffix in rest)
        more = " and others" if len(rest) > SHOWN else ""
        other = "other file" if number == 1 else "other files"
        parts.append(f"{number:,} {other} ({', '.join(rest[:SHOWN])}{more})")
    return "; ".join(parts)


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def suffix_of(name: str) -> str:
    """A file name's last suffix in lower case, with its dot; "" where there is no usual one.

    Of tars it is the whole of .tar.xz. A suffix has up to 12 letters and digits, one letter at
    least: the rest of a sentence, or of a URL, is none.
    """
    stem, _, last = name.lower().rpartition(".")
    if not stem or not _is_suffix(last):
        return ""
    return f".tar.{last}" if stem.endswith(".tar") and len(stem) > len(".tar") else f".{last}"


@lru_cache(maxsize=4096)
def _is_suffix(text: str) -> bool:
    return _SUFFIX.fullmatch(text) is not None
