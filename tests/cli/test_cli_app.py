"""Help, options, exit codes and the error boundary of the whole command line."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from clikit import Run
from typer.main import get_command

from latentcli import __version__
from latentcli.cli import app as app_module
from latentcli.cli.app import app, main
from latentcli.cli.commands import NAMES
from latentcli.cli.help import PANELS
from latentcli.core.errors import Interrupted, SelfCheckError, WeightsError
from latentcli.core.options import SECTIONS, options_of
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.cluster.slurm_script import SlurmJob
from latentcli.jobs.config import DecodeJob, EncodeJob, RoundtripJob, SyncJob
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.store.budget_config import BudgetJob
from latentcli.jobs.store.config import CardJob, InspectJob, PushJob, VerifyJob
from latentcli.jobs.store.watch_config import WatchJob
from latentcli.jobs.video.config import VideoDistanceJob, VideoEmbedJob

JOBS = {
    "encode": EncodeJob,
    "decode": DecodeJob,
    "roundtrip": RoundtripJob,
    "bench": BenchJob,
    "verify": VerifyJob,
    "budget": BudgetJob,
    "inspect": InspectJob,
    "slurm": SlurmJob,
    "sync": SyncJob,
    "card": CardJob,
    "push": PushJob,
    "export": ExportJob,
    "watch": WatchJob,
    "video-embed": VideoEmbedJob,
    "video-distance": VideoDistanceJob,
}
PLAIN = {"TERM": "dumb", "COLUMNS": "100"}


def parameters(verb: str) -> dict[str, Any]:
    """A command's parameters by name, without the context and --help."""
    return {p.name: p for p in get_command(app).commands[verb].params}


def python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **PLAIN, **variables}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom latentcli.cli.app import main\nmain(['encode', '--help'])\n"
        "print(*(m for m in ('torch', 'PIL', 'numpy', 'safetensors') if m in sys.modules),"
        " file=sys.stderr)"
    )
    done = python("-c", code)
    assert "--batch-size" in done.stdout
    assert done.stderr.strip() == ""


def cpu_seconds(*words: str) -> float:
    """CPU time of a Python process."""
    before = os.times()
    python(*words)
    after = os.times()
    spent = (after.children_user - before.children_user, after.children_system)
    return spent[0] + spent[1] - before.children_system


def test_help_is_quick() -> None:
    """Little more than loading typer and rich takes on the same machine in the same minute."""
    libraries = "import typer, rich.console, rich.panel, rich.table, rich.markdown"
    turns = [
        (cpu_seconds("-m", "latentcli", "--help"), cpu_seconds("-c", libraries)) for _ in range(5)
    ]
    spent, loading = (statistics.median(column) for column in zip(*turns, strict=True))
    assert spent < max(0.4, 3 * loading)


def test_python_m_is_the_command() -> None:
    done = python("-m", "latentcli", "--version")
    assert (done.returncode, done.stdout) == (0, f"latentcli {__version__}\n")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command(cli: Run, words: tuple[str, ...]) -> None:
    shown = cli(*words)
    assert shown.code == 0
    for name in NAMES:
        assert re.search(rf"^\W*{name}\s+[A-Z]", shown.out, re.MULTILINE)


@pytest.mark.parametrize("words", [["encode"], ["models"], ["models", "show"]])
def test_help_is_a_word_too(cli: Run, words: list[str]) -> None:
    asked = cli("help", *words)
    assert asked.code == 0 and asked.out == cli(*words, "--help").out


@pytest.mark.parametrize("verb", NAMES)
def test_every_option_has_help_a_variable_and_no_default_of_its_own(verb: str) -> None:
    command = get_command(app).commands[verb]
    assert command.help
    for name, parameter in parameters(verb).items():
        if name in ("help", "help_all", "context"):
            continue
        assert parameter.help, name
        assert parameter.default in (None, False), name
        if parameter.param_type_name == "option" and name != "weights":
            # --format means another thing to decode, and --dtype to export, and a variable is there
            # for all commands.
            named = name in ("shard_format", "file_dtype")
            option = name if named else parameter.opts[0].removeprefix("--")
            assert parameter.envvar == f"LATENTCLI_{option.replace('-', '_').upper()}"


def test_every_command_that_has_options_is_made_of_a_job() -> None:
    assert {*JOBS, "plan", "models"} == set(NAMES)


@pytest.mark.parametrize("verb", JOBS)
def test_every_option_has_help_and_a_section(verb: str) -> None:
    """But for what is about one run, and for commands that have no job files."""
    options = options_of(JOBS[verb])
    assert all(told.help.endswith(".") for told in options.values())
    assert {told.panel or told.section for told in options.values()} <= PANELS.keys()
    without = {name for name, told in options.items() if told.section not in SECTIONS}
    no_files = verb in ("inspect", "slurm", "card", "push", "watch")
    assert without == (options.keys() if no_files else {"dry_run"} & options.keys())
    assert ("config" in parameters(verb)) is not no_files


@pytest.mark.parametrize("verb", JOBS)
def test_the_options_are_the_fields_of_the_job(verb: str) -> None:
    named = parameters(verb).keys() - {"help", "help_all", "config", "json", "quiet"}
    assert named == {field.name for field in fields(JOBS[verb])}


def shown_default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("verb", JOBS)
def test_help_tells_the_defaults_and_the_choices(verb: str) -> None:
    options = parameters(verb)
    for field in fields(JOBS[verb]):
        text = options[field.name].help
        for choice in options_of(JOBS[verb])[field.name].choices:
            assert re.search(rf"\b{choice}\b", text), (field.name, choice)
        if field.default in (None, "", (), MISSING) or field.name in ("dry_run", "force"):
            continue
        default = re.escape(shown_default(field.default))
        told = (
            rf"{default} \(default|\(default\).*{default}|Default: {default}(?!\w)"
            rf"|{default}.*default"
        )
        assert re.search(told, text), (field.name, text)


@pytest.mark.parametrize("verb", ["encode", "roundtrip", "slurm"])
def test_help_shows_what_stands_in_brackets(
    cli: Run, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    texts = [f"{option.metavar} {option.help}" for option in options_of(JOBS[verb]).values()]
    words = [word for text in texts for word in re.findall(r"[^\s(]*\[[^\s),;]*", text)]
    shown = cli(verb, "--help-all").out
    assert words and all(word in shown for word in words)


def test_help_tells_the_defaults_that_a_job_finds_by_itself() -> None:
    from latentcli.jobs.inference.accelerator import Cpu, Cuda
    from latentcli.jobs.inference.batch_size import LARGEST
    from latentcli.jobs.loader.find_media import PER_SHARD
    from latentcli.jobs.loader.loader import FEW_INPUTS

    encode, embed = options_of(EncodeJob), options_of(VideoEmbedJob)
    rest = options_of(RoundtripJob)["batch_size"].help
    assert f"0 for fewer than {FEW_INPUTS} inputs" in encode["workers"].help
    assert f"{PER_SHARD['images']} images or {PER_SHARD['clips']} clips" in (
        encode["samples_per_shard"].help
    )
    assert f"Default: {Cpu.batch_size} on a CPU, {Cuda.batch_size} on a GPU." in rest
    on_gpu = (
        f"as many as have 2^{Cuda.batch_pixels.bit_length() - 1} pixels together, at most"
        f" {LARGEST}."
    )
    assert f"else {Cpu.batch_size} on a CPU, and on a GPU {on_gpu}" in encode["batch_size"].help
    assert f"{Cpu.groups} on a CPU, {Cuda.groups} on a GPU." in embed["batch_size"].help


def test_a_short_form_means_the_same_everywhere_and_is_there_wherever_its_option_is() -> None:
    short: dict[str, set[str]] = {}
    for verb in NAMES:
        for parameter in parameters(verb).values():
            if parameter.param_type_name == "option":
                for flag in parameter.opts[1:]:
                    short.setdefault(flag, set()).add(parameter.opts[0])
                for flag, long in {"-m": "--model", "-b": "--batch-size", "-o": "--output"}.items():
                    assert (flag in parameter.opts) is (long in parameter.opts), (verb, flag)
    assert short == {
        "-m": {"--model"},
        "-b": {"--batch-size"},
        "-o": {"--output"},
        "-0": {"--null"},
        "--revision": {"--branch"},
    }


def test_short_forms_are_the_options(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for words in (["-b", "x"], ["--batch-size", "x"]):
        told = cli("encode", tmp_path, "-o", tmp_path / "out", *words).err
        assert "--batch-size is 'x'; expected a whole number." in told
    assert "no model named 'x'" in cli("encode", tmp_path, "-m", "x").err


def test_one_spelling_and_one_text_for_each_option() -> None:
    """Options of the same name differ only where the commands do."""
    texts: dict[str, set[str]] = {}
    for verb in NAMES:
        for parameter in parameters(verb).values():
            if parameter.param_type_name == "option" and parameter.name != "help":
                texts.setdefault(parameter.opts[0], set()).add(parameter.help)
    several = {name for name, found in texts.items() if len(found) > 1}
    differing = {"--model", "--workers", "--output", "--latents", "--batch-size", "--format"}
    differing |= {"--devices"}
    of_groups = {"--weights", "--frames", "--size", "--force", "--baseline", "--report"}
    of_groups |= {"--dry-run", "--samples", "--dtype", "--sample", "--compile"}
    assert several == differing | of_groups


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["encode", "--sise", "3"], "No such option: --sise"),
        (["encod"], "No such command 'encod'. Did you mean 'encode'"),
        (
            ["encode", "x", "--batch-size", "many"],
            "--batch-size is 'many'; expected a whole number.",
        ),
        (["bench", "--batch", "1,x"], "--batch is ['1', 'x']; expected a whole number or a list"),
        (["decode", "x", "--pdg-strength", "nan"], "--pdg-strength is nan; expected a number."),
        (["encode"], "Give what to read"),
        (["decode"], "Give the store"),
        (["inspect"], "Give the store"),
        (["bench", "--stages"], "Give what to read"),
        (["encode", "x", "--filter", "cubic"], "allowed are lanczos"),
        (["encode", "x", "--max-bad", "some"], "--max-bad is 'some'"),
    ],
)
def test_wrong_usage_is_2_and_told_on_stderr(cli: Run, words: list[str], told: str) -> None:
    result = cli(*words)
    assert result.code == 2
    assert result.out == ""
    assert "error: " in result.err
    assert told in result.err
    assert "Traceback" not in result.err


def test_usage_errors_of_the_parser_show_the_usage_line(cli: Run) -> None:
    assert cli("encode", "--sise").err.startswith("Usage: latentcli encode [OPTIONS]")


def test_errors_are_documents_with_json(cli: Run) -> None:
    for words in (["encode", "--sise", "--json"], ["inspect", "nowhere", "--json"]):
        result = cli(*words)
        assert result.document == {"error": result.document["error"], "exit_code": result.code}
        assert f"error: {result.document['error']}\n" in result.err


def failing(error: BaseException) -> Any:
    def command(context: typer.Context) -> None:
        """Fails."""
        raise error

    return command


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds a command that raises what it is given, to the real app's boundary."""

    def add(error: BaseException) -> None:
        other = typer.Typer(pretty_exceptions_enable=False)
        other.callback()(app_module.top)
        other.command("fail")(failing(error))
        monkeypatch.setattr(app_module, "app", other)

    return add


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (SelfCheckError("The range is wrong."), 1, "error: The range is wrong.\n"),
        (Interrupted("Stopped by SIGTERM."), 75, "error: Stopped by SIGTERM.\n"),
        (KeyboardInterrupt(), 75, "error: Stopped by SIGINT. Run the same command again.\n"),
        (RuntimeError("odd\nthing"), 1, "error: An unexpected RuntimeError: odd. Add --debug"),
        (
            RuntimeError("can't start new thread"),
            1,
            "error: The system allows no more threads. `ulimit -u`",
        ),
        (
            torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore"),
            1,
            "error: The device failed: CUDA error: an illegal memory access was encountered. A",
        ),
        (BrokenPipeError(32, "Broken pipe"), 1, "error: An unexpected BrokenPipeError"),
        (EOFError(), 1, "error: An unexpected EOFError: it gives no reason."),
    ],
)
def test_the_boundary(cli: Run, broken: Any, error: BaseException, code: int, told: str) -> None:
    broken(error)
    result = cli("fail")
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(told)


@pytest.mark.parametrize("words", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    cli: Run, broken: Any, words: list[str]
) -> None:
    broken(RuntimeError("odd"))
    assert "Traceback" in cli(*words).err
    assert "Traceback" not in cli("fail").err


def test_debug_by_variable(cli: Run, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(SelfCheckError("odd"))
    monkeypatch.setenv("LATENTCLI_DEBUG", "1")
    assert "Traceback" in cli("fail").err


def test_after_two_dashes_debug_is_a_name(cli: Run) -> None:
    assert "There is no --debug" in cli("inspect", "--", "--debug").err


def test_completion_offers_commands_and_choices() -> None:
    for words, index, offered in (
        ("latentcli enc", 1, "encode"),
        ("latentcli encode --dtype b", 3, "bf16"),
    ):
        done = python(
            "-m",
            "latentcli",
            _LATENTCLI_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(index),
        )
        assert offered in done.stdout.split()


def test_main_takes_the_words_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["latentcli", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"latentcli {__version__}\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m latentcli models --json | true"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_behind_a_signal_is_told_as_the_signal():
    damage = WeightsError("the file is damaged")
    request = StopRequest("")
    assert app_module.heeded(damage, request) is damage
    request.signal = signal.SIGTERM
    told = app_module.heeded(damage, request)
    assert isinstance(told, Interrupted) and "SIGTERM" in str(told)
    already = Interrupted("Stopped.")
    assert app_module.heeded(already, request) is already
