"""Runs a command line to its exit code: the Typer app and the one error boundary."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from latentcli import __version__
from latentcli.cli.command import NOTHING, plain
from latentcli.cli.commands import EPILOG, TopGroup
from latentcli.cli.help import HelpAll
from latentcli.cli.other_names import option_hint
from latentcli.cli.output import Output, asked
from latentcli.cli.variables import check_variables
from latentcli.core.errors import Interrupted, LatentCliError, LeaderFailed
from latentcli.core.near_names import suggestion
from latentcli.jobs.cluster.environment import LAUNCHED
from latentcli.jobs.runtime.process import stopped_by
from latentcli.jobs.runtime.signals import StopRequest, handled, stop_at_once

NAME = "latentcli"
AGAIN = "Run the same command again."
HELP = ["-h", "--help"]

app = typer.Typer(
    name=NAME,
    cls=TopGroup,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP},
    epilog=EPILOG,
)


def print_version(wanted: bool) -> None:
    """Prints the version and ends the command, where it is asked for."""
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=print_version, metavar=NOTHING
        ),
    ] = False,
    debug: Annotated[
        bool, plain("debug", "Show the traceback of an error; may stand anywhere in the command.")
    ] = False,
    help_all: HelpAll = False,
) -> None:
    """Pre-compute latents of image and video datasets, check them, and decode them again.

    latentcli COMMAND --help shows the usual options of a command, --help-all all of them.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (without the program's name; None is sys.argv's) to its exit code."""
    if f"_{NAME.upper()}_COMPLETE" in os.environ:
        app(prog_name=NAME)  # a shell asks for completions; this prints them and exits
    # The model's CPU threads must not burn the cores that loader processes need while they wait
    # for each other. OpenMP reads this when torch is loaded, and a user's own setting stays.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # A process of the job that is gone is reported in one sentence, not in a page of torch's.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    words = list(sys.argv[1:] if argv is None else argv)
    out = Output(asked("json", words, os.environ), asked("quiet", words, os.environ), tuple(words))
    debug = asked("debug", words, os.environ)
    logging.getLogger(NAME).setLevel(logging.ERROR if out.quiet else logging.WARNING)
    code = exit_code_of(words, out, debug)
    # The job is over: a signal while a log or a tracker takes the last event changes nothing.
    with handled(lambda *_: os._exit(code)):
        return out.end(code)


def exit_code_of(words: list[str], out: Output, debug: bool) -> int:
    """The exit code of a command line; an error that ends it is told."""
    with stop_at_once(AGAIN) as stop:
        out.check = stop.check
        try:
            run(asked_for_help(without_debug(words)), out)
        except typer.Exit as end:
            return end.exit_code
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            if isinstance(error, LeaderFailed) and LAUNCHED in os.environ:
                return error.exit_code  # the first process tells it on this very stderr
            return out.fail(*explain(heeded(error, stop)))
    return 0


def heeded(error: BaseException, stop: StopRequest) -> BaseException:
    """The error, or what a signal is told as that came out of an import, or of a library, as it.

    A library may also take the signal for damage of what it was reading, and give that as reason.
    """
    if stop.signal is None or isinstance(error, Interrupted):
        return error
    return Interrupted(f"{stopped_by(stop.signal)} {AGAIN}")


def run(words: list[str], out: Output) -> None:
    """Parses and runs. Not through Typer's own main, which ends a job silently on EPIPE."""
    root = get_command(app)
    with root.make_context(NAME, words, obj=out) as context:
        if not {*HELP, "--help-all"} & {*words}:  # which tells the right names
            check_variables(root, os.environ, words)
        root.invoke(context)


def without_debug(words: list[str]) -> list[str]:
    """The words less --debug, which belongs to no command and so may stand in any."""
    end = words.index("--") if "--" in words else len(words)
    return [word for word in words[:end] if word != "--debug"] + words[end:]


def asked_for_help(words: list[str]) -> list[str]:
    """The words, or --help for none; `help encode`, as other tools have it, is `encode --help`."""
    if not words:
        return ["--help"]
    return [*words[1:], "--help"] if words[0] == "help" else words


def with_one_suggestion(error: Any) -> str:
    """What Typer says of a mistake, with what is likely to be meant, or with what is allowed."""
    context, name = getattr(error, "ctx", None), getattr(error, "option_name", None)
    told: str = error.format_message()
    if context is None:
        return told
    if name is not None and hasattr(error, "possibilities"):
        return f"{error.message}{about_option(name, context)}"
    return told + about_words(told, context)


def about_option(name: str, context: Any) -> str:
    """What to say behind an option that the command of a context does not have."""
    params = context.command.params
    if hint := option_hint(name, {flag for parameter in params for flag in parameter.opts}):
        return hint
    flags = [flag for one in params for flag in (*one.opts, *one.secondary_opts)]
    if name.startswith("--") and (near := suggestion(name, flags, "--")):
        return near
    if context.parent is None:
        return f". Options stand behind a command, as in {NAME} encode photos --size 512."
    return f". {context.command_path} --help-all lists the options."


def about_words(told: str, context: Any) -> str:
    """What to say behind words that a command has no place for; nothing of other mistakes."""
    if not told.startswith("Got unexpected extra argument"):
        return ""
    path, places = context.command_path, context.command.params
    taken = [one.metavar for one in places if one.param_type_name == "argument" and one.metavar]
    what = f"takes only {' '.join(taken)} without an option" if taken else "takes only options"
    return f". {path} {what}; {path} --help shows the options, such as -o."


LOST_DEVICE = "AcceleratorError"
"""What torch, which is not loaded here, calls the error after which it cannot use a device."""
AFTER_LOST_DEVICE = (
    "After such an error a process cannot use the device any more. What is committed stays: run"
    " the same command again to finish the rest, with --debug to see where it fails."
)

NO_THREAD = "can't start new thread"
"""What Python says where the system refuses one."""
FEWER_THREADS = (
    "The system allows no more threads. `ulimit -u`, or the limit of a container, says how many"
    " processes and threads there may be: allow more, or use fewer --workers. What is committed"
    " stays; run the same command again to finish the rest."
)


def explain(error: BaseException) -> tuple[str, int, str | None]:
    """(message, exit code, usage line or None) of what ended a command."""
    if isinstance(error, LatentCliError):
        return str(error), error.exit_code, None
    if isinstance(error, KeyboardInterrupt):
        return f"{stopped_by(signal.SIGINT)} {AGAIN}", Interrupted.exit_code, None
    if hasattr(error, "format_message"):  # Typer's own; its classes moved between versions
        context = getattr(error, "ctx", None)
        usage = context.get_usage().strip() if context else None
        return with_one_suggestion(error), getattr(error, "exit_code", 2), usage
    kind = type(error).__name__
    reason = str(error).strip().partition("\n")[0].rstrip(".") or "it gives no reason"
    if kind == LOST_DEVICE:
        return f"The device failed: {reason}. {AFTER_LOST_DEVICE}", 1, None
    if reason == NO_THREAD:
        return FEWER_THREADS, 1, None
    return f"An unexpected {kind}: {reason}. Add --debug to see where.", 1, None
