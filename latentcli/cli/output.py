"""Prints what a command has to say, as the only place that prints.

Data goes to stdout, messages to stderr. With --json, stdout is exactly one JSON document. With
--quiet, stderr has errors only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from latentcli.core.errors import LatentCliError
from latentcli.core.json_values import finite
from latentcli.jobs.config import BUNDLED_MODEL
from latentcli.jobs.runtime.meter import Snapshot, ignore
from latentcli.jobs.runtime.reporter import Reporter

if TYPE_CHECKING:
    import typer
    from rich.console import Console, RenderableType

    from latentcli.cli.display import Display
    from latentcli.jobs.runtime.broadcast import Broadcast
    from latentcli.jobs.settings.follow import FollowSettings

TRUE = ("1", "true", "t", "yes", "y", "on")
"""What a LATENTCLI_* variable of a switch says for yes, as Typer reads it."""

BUNDLED_NOTE = (
    f"No --model given: using the small bundled {BUNDLED_MODEL}. It is for trying the tool, not for"
    " training caches; latentcli models lists the others."
)


def asked(name: str, words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether --name is among the words of a command line, or LATENTCLI_NAME says yes."""
    options = words[: words.index("--")] if "--" in words else words
    return f"--{name}" in options or variables.get(f"LATENTCLI_{name.upper()}", "").lower() in TRUE


@dataclass
class Output:
    """The sink of one command."""

    as_json: bool = False
    quiet: bool = False
    words: tuple[str, ...] = ()
    """The command line."""
    stdout_is_taken: bool = False
    """Whether stdout is a tar stream; the JSON document is then a message, and goes to stderr."""
    check: Callable[[], None] = lambda: None
    """Raises where the command is to stop; called before status and progress are shown."""
    documented: bool = field(default=False, init=False)
    """Whether the JSON document is out."""
    broadcast: Broadcast | None = field(default=None, init=False)
    """What gives the job's events to those that follow it."""
    error: str | None = field(default=None, init=False)
    """The message that the command failed with."""

    @cached_property
    def stdout(self) -> Console:
        return self._console(sys.stdout)

    @cached_property
    def stderr(self) -> Console:
        return self._console(sys.stderr)

    @staticmethod
    def _console(stream: Any) -> Console:
        from latentcli.cli.console import console_on  # rich costs time that --version has not

        return console_on(stream)

    @contextmanager
    def reporter(
        self, job: FollowSettings | None = None, verb: str = "", *, leads: bool = True
    ) -> Iterator[Reporter]:
        """What a job speaks through while it runs; code that is loaded within is waited for.

        A process that does not lead its job has notes alone. The others are followed as the job
        asks for; UsageError where that cannot be.
        """
        from latentcli.cli.display import PlainDisplay, display_for

        display = display_for(self.stderr, self.quiet) if leads else PlainDisplay(self.stderr)
        if not leads:
            yield Reporter(note=ignore if self.quiet else display.note)
            return
        if job is not None:
            from latentcli.cli.follow import followed

            self.broadcast = followed(job, verb, display.note)

        display.start()
        try:
            reporter = self._heard(display, self.broadcast)
            reporter.status("Loading")
            if self.broadcast is not None:
                self.broadcast.release()
            yield reporter
        finally:
            display.close()

    def _heard(self, display: Display, broadcast: Broadcast | None) -> Reporter:
        """A reporter that the display shows, and the followers get, what it is told."""

        def note(text: str) -> None:
            display.note(text)
            if broadcast is not None:
                broadcast.note(text)

        def status(text: str) -> None:
            self.check()
            display.status(text)
            if broadcast is not None:
                broadcast.status(text)

        def progress(snapshot: Snapshot) -> None:
            self.check()
            display.progress(snapshot)
            if broadcast is not None:
                broadcast.progress(snapshot)

        if broadcast is None:
            return Reporter(note, progress, status)
        return Reporter(note, progress, status, broadcast.committed, broadcast.about)

    def end(self, exit_code: int) -> int:
        """Tells those that follow the job how it ended; the exit code."""
        if self.broadcast is not None:
            self.broadcast.end(exit_code, self.error)
        return exit_code

    def say(self, lines: Iterable[str]) -> None:
        """Reporter: each line as it is, on stderr."""
        if not self.quiet:
            for line in lines:
                self.stderr.out(line, highlight=False)

    def show(
        self,
        document: Any,
        data: Callable[[Any], Iterable[RenderableType]] | None = None,
        summary: Callable[[Any], Iterable[str]] | None = None,
    ) -> None:
        """The result: as JSON, or as data on stdout with messages about it on stderr."""
        if self.as_json:
            self._document(document)
            return
        for item in data(document) if data else ():
            self._print(item)
        self.say(summary(document) if summary else ())

    def _print(self, item: RenderableType) -> None:
        """One thing to stdout; in a file or a pipe without the blanks that fill a table's lines."""
        if self.stdout.is_terminal:
            self.stdout.print(item)
            return
        with self.stdout.capture() as shown:
            self.stdout.print(item)
        for line in shown.get().splitlines():
            self.stdout.out(line.rstrip(), highlight=False)

    def _document(self, document: Any) -> None:
        self.documented = True
        text = json.dumps(finite(document), indent=2, allow_nan=False)
        (self.stderr if self.stdout_is_taken else self.stdout).out(text, highlight=False)

    def fail(self, message: str, exit_code: int, usage: str | None = None) -> int:
        """An error on stderr, and as the JSON document where none is out yet; its exit code."""
        self.error = message
        if usage:
            self.stderr.out(usage, highlight=False)
        self.stderr.out(f"error: {message}", highlight=False)
        if self.as_json and not self.documented:
            with suppress(LatentCliError):  # one error is enough
                self._document({"error": message, "exit_code": exit_code})
        return exit_code


def output_of(context: typer.Context) -> Output:
    """The sink that main() made."""
    out = context.obj
    if not isinstance(out, Output):
        raise TypeError("a command is run by latentcli.cli.app.main, which makes its Output")
    return out


def say_bundled(out: Output, given: frozenset[str]) -> None:
    """Says that the bundled model is used, where nobody chose one."""
    if not given & {"model", "models"}:
        out.say([BUNDLED_NOTE])
