"""Matches paths below a source with patterns as .gitignore has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from latentcli.core.errors import UsageError
from latentcli.shards.sources.braces import brace_names

_TOKEN = re.compile(r"/\*\*$|\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.DOTALL)
_MEANINGS = {"/**": "/.*", "**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True)
class Patterns:
    """Which files of a source are wanted: some, by --include, but none of --exclude.

    A pattern stands for a whole path below the source, with forward slashes. `*` and `?` stop at a
    slash, `**` does not. Without a slash in front of its end it may stand at any depth. What
    matches a folder matches all below it; with a slash at its end it matches nothing else.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    _compiled: dict[str, re.Pattern[str]] = field(default_factory=dict, init=False, compare=False)
    met: set[str] = field(default_factory=set, init=False, compare=False)
    """Patterns that something matched so far."""

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            self._compiled[pattern] = compiled(pattern)

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)

    def takes(self, path: str) -> bool:
        """Whether a file is wanted, by its path below the source."""
        included = not self.include or self._match(self.include, path)
        return not self._match(self.exclude, path) and included

    def prunes(self, folder: str) -> bool:
        """Whether nothing below a folder is wanted, so that it need not be listed."""
        return bool(self.exclude) and self._match(self.exclude, f"{folder}/")

    def unmet(self) -> list[str]:
        """Patterns that nothing matched, with their options, in the order they were given."""
        options = {"--include": self.include, "--exclude": self.exclude}
        return [
            f"{option} {pattern}"
            for option, patterns in options.items()
            for pattern in patterns
            if pattern not in self.met
        ]

    def _match(self, patterns: Iterable[str], path: str) -> bool:
        for pattern in patterns:
            if self._compiled[pattern].fullmatch(path):
                self.met.add(pattern)
                return True
        return False


def compiled(pattern: str) -> re.Pattern[str]:
    """The expression that matches the files of a pattern, and its folders with a slash at the end.

    Braces are spread out. UsageError where it is empty, or takes back what others say (`!`).
    """
    names = brace_names(pattern) or [pattern]
    return re.compile("|".join(f"(?:{_expression(name, pattern)})" for name in names), re.DOTALL)


def _expression(name: str, pattern: str) -> str:
    body = name.removeprefix("./").strip("/")
    if not body:
        raise UsageError(f"the pattern {pattern!r} is empty: write a name, such as '*.jpg'.")
    if name.startswith("!"):
        raise UsageError(
            f"the pattern {pattern!r} begins with an exclamation mark, which does not negate a"
            " pattern here: use --include and --exclude. A name that begins with one is written"
            r" '\!name'."
        )
    anywhere = "" if "/" in name.rstrip("/") else "(?:.*/)?"
    below = "/.*" if name.endswith("/") else "(?:/.*)?"
    return anywhere + "".join(map(_meaning, _TOKEN.findall(body))) + below


def _meaning(token: str) -> str:
    if token in _MEANINGS:
        return _MEANINGS[token]
    if token[0] == "[" and len(token) > 1:
        return _one_of(token[1:-1])
    return re.escape(token[1:] if token[0] == "\\" and len(token) > 1 else token)


def _one_of(inner: str) -> str:
    """One character, of those within brackets; never a slash."""
    negated = inner[0] in "!^"
    escaped = re.sub(r"([\\\[\]&~|])", r"\\\1", inner[1:] if negated else inner)
    return f"(?!/)[{'^' if negated else ''}{escaped}]"
