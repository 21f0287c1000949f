"""Says what a job takes of its sources, and counts what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from latentcli.shards.sources.file_list import Source
from latentcli.shards.sources.heads import Doubtful
from latentcli.shards.sources.left_out import NO_SUFFIX, LeftOut, suffix_of
from latentcli.shards.sources.other_suffixes import OTHER_SUFFIXES
from latentcli.shards.sources.own_output import MARK
from latentcli.shards.sources.patterns import Patterns


@dataclass(frozen=True, slots=True)
class Scan:
    """What is taken of folders and globs, and what was left out of them so far.

    A file that is named itself is taken whatever it is, unless a pattern is against it.
    """

    suffixes: frozenset[str]
    """Of inputs; lower case, with the dot."""
    told: Callable[[bytes], str | None] | None = None
    """The suffix of a picture by its first bytes; None where names alone tell."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Suffixes of pictures that cannot be read here, with what to do about it."""
    patterns: Patterns = field(default_factory=Patterns)
    include_output: bool = False
    """Whether pictures that this program wrote are taken, as all others."""
    null: bool = False
    """Whether the names of a list end with a NUL and not with a line."""
    allow_pipe: bool = False
    """Whether sources of the form pipe:COMMAND are allowed."""
    left_out: LeftOut = field(default_factory=LeftOut)
    endings: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "endings", tuple(self.suffixes))

    def takes(
        self,
        path: str,
        below: str,
        doubtful: Doubtful,
        *,
        own: bool = False,
        size: int = -1,
        mtime_ns: int = -1,
    ) -> bool:
        """Whether a file of a folder is an input by its name; else it is counted, or doubtful.

        `below` is its path below the source; `own` says that this program wrote it. The numbers
        are those of FoundInput.
        """
        if self.patterns and not self.patterns.takes(below):
            self.left_out.add_file("excluded", path)
            return False
        name = path.rpartition("/")[2].lower()
        is_named_so, suffix = name.endswith(self.endings), ""
        if not is_named_so:
            suffix = suffix_of(name)
            is_text = name.endswith(self.left_out.beside.endings)
            if self.told is None or suffix in OTHER_SUFFIXES or is_text:
                self.left_out.add_file(suffix or NO_SUFFIX, path)
                return False
        if own:
            self.left_out.add("output_files", path)
            return False
        if not is_named_so:
            doubtful.add(suffix, path, size, mtime_ns)
        return is_named_so

    def prunes(self, folder: str, source: str) -> bool:
        """Whether a folder below a source is passed over because of a pattern, and counts it."""
        pruned = self.patterns.prunes(folder[len(source.rstrip("/")) + 1 :])
        if pruned:
            self.left_out.add("excluded_folders", folder)
        return pruned

    def count_hidden(self, name: str, *, is_folder: bool = False) -> None:
        """Counts a hidden file or folder, unless it is a mark of this program."""
        if name != MARK:
            self.left_out.add("hidden_folders" if is_folder else "hidden_files")

    def pictures(self, doubtful: Doubtful, limit: int) -> Iterator[tuple[str, int, int]]:
        """Path, size and time of the doubtful files that are inputs; the others are counted."""
        if self.told is None:
            return iter(())
        return doubtful.pictures(self.told, self.suffixes, self.unread, self.left_out, limit)

    def named(self, source: Source) -> Source:
        """A source of files that were named one by one, without those that patterns are against."""
        if not self.patterns or source.anchor is None:
            return source
        skip = len(source.anchor.rstrip("/")) + 1
        wanted = source.files.where(lambda path: self.patterns.takes(path[skip:]))
        if len(wanted) < len(source.files):
            self.left_out.add("excluded", number=len(source.files) - len(wanted))
        return replace(source, files=wanted)

    def without_patterns(self) -> Scan:
        """The same, for files whose paths are matched later."""
        return replace(self, patterns=Patterns())
