"""Prepares a process before any code of the job is loaded: signals, standard streams, names.

Loads nothing itself that costs time: what it guards against comes in the first instant too.
"""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from latentcli.core.errors import Interrupted, LatentCliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What ends a job in good order."""
CLOSED: set[int] = set()
"""Standard streams that were closed when the process began; they lead nowhere since."""
UNREAD: set[int] = set()
"""Descriptors of data whose reader has left."""


class Talk(io.RawIOBase):
    """A descriptor that takes messages; what cannot be written is dropped, and nothing ends by it.

    The disk of a log may be full and the terminal gone, but the job goes on.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def isatty(self) -> bool:
        return os.isatty(self._handle)

    def write(self, data: object, /) -> int:
        """Writes all of it, if it can be written; the bytes that it was given."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        rest = view
        while rest:
            try:
                rest = rest[os.write(self._handle, rest) :]
            except BlockingIOError:
                select.select([], [self._handle], [])
            except OSError as error:
                self.refused(error)
                break
        return len(view)

    def refused(self, error: OSError) -> None:
        """Is told why something cannot be written, and may raise."""


class Data(Talk):
    """A descriptor that takes data: the first time that it cannot be written is an error.

    A reader that has left has seen what it wanted.
    """

    _told = False

    def refused(self, error: OSError) -> None:
        """LatentCliError, once: the interpreter tries again when it ends."""
        if isinstance(error, BrokenPipeError):
            UNREAD.add(self._handle)
            return
        if self._told:
            return
        self._told = True
        raise LatentCliError(
            f"Standard output cannot be written: {error.strerror}. What the command made elsewhere"
            " is kept."
        )


def hold_standard_streams() -> None:
    """Opens standard streams that are closed on /dev/null; see Talk and Data for the others.

    Otherwise the next file that is opened gets the number of a closed one, and what is printed goes
    there.
    """
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            CLOSED.add(handle)
    sys.stdout = _text(Data(1), sys.stdout, "surrogateescape")
    sys.stderr = _text(Talk(2), sys.stderr, "backslashreplace")


def _text(stream: Talk, before: TextIO | None, errors: str) -> io.TextIOWrapper:
    """A stream of text, like the one that Python has opened there, if it has."""
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=getattr(before, "encoding", "utf-8"),
        errors=getattr(before, "errors", errors),
        line_buffering=getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )


def speak_utf8() -> None:
    """Starts the process anew, once, where the locale says that names of files are no UTF-8.

    Their keys would be others than under any other locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.environ["PYTHONUTF8"] = "1"  # for the processes of the job, too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


@contextmanager
def loading() -> Iterator[None]:
    """Looks for no garbage while code is loaded, nor later in what was loaded here.

    torch and the rest are half a million objects, all of which stay. To look through them again and
    again while they come, and once more when the process ends, took a quarter of the processor time
    of a short command. Where torch was loaded before, nothing is changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave_at_once() -> None:
    """Until the job sets handlers of its own, a signal ends the process with one line.

    A parent may have held the signals back until now, as a traceback is all that Python has for
    them while it starts.
    """
    for number in STOPPING:
        signal.signal(number, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    sys.unraisablehook = _tell_unless_stopped


def ends_with(code: int) -> None:
    """Has signals end the process with an exit code that is settled already."""
    for number in STOPPING:
        signal.signal(number, lambda *_: os._exit(code))


def _leave(number: int, _: FrameType | None) -> None:
    # Not an exception: in the middle of an import it may come out as another one, or not at all.
    text = f"{stopped_by(number)} Run the same command again."
    Talk(2).write(f"error: {text}\n".encode())
    if "--json" in sys.argv:
        Talk(1).write(f'{{"error": "{text}", "exit_code": {Interrupted.exit_code}}}\n'.encode())
    os._exit(Interrupted.exit_code)


def _tell_unless_stopped(told: sys.UnraisableHookArgs) -> None:
    # Where an interruption came out of a finalizer, the job knows of it and ends with a line.
    if told.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(told)


def stopped_by(number: int) -> str:
    """The sentence about a signal that came."""
    return f"Stopped by {signal.Signals(number).name}."
