"""A field of a job is an option: on the command line, in job files, as a variable, in the help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from clikit import Run
from typer.main import get_command

from latentcli.cli import app as app_module
from latentcli.cli.command import command
from latentcli.cli.help import HelpfulCommand
from latentcli.cli.output import Output
from latentcli.core.options import like, option


@dataclass(frozen=True, kw_only=True)
class BakeJob:
    """A job of two fields."""

    flour: str = option("", "Flour.", argument=True, section="read", needed="Give the flour.")
    oven: str = option("gas", "gas (default) or wood.", section="model", choices=("gas", "wood"))


@dataclass(frozen=True, kw_only=True)
class BakeMoreJob(BakeJob):
    """The same with more fields."""

    loaves: int = option(3, "Loaves. Default: 3.", section="batch", least=1, most=9)
    seeds: tuple[int, ...] = option((), "Seeds. Default: none.", section="read", commas=True)
    toppings: tuple[str, ...] = option((), "Topping. Default: none.", section="read", key="topping")
    steam: bool = option(False, "Steam. Default: off.", section="encode")
    cook: str = like(BakeJob, "oven", help="gas (default), or wood, of the cook.", variable=False)


Baker = Callable[[type[BakeJob]], None]


@pytest.fixture
def baker(monkeypatch: pytest.MonkeyPatch) -> Baker:
    """Adds `bake`, which shows its job, to the real app's boundary: a body of three lines."""

    def add(kind: type[BakeJob]) -> None:
        @command(kind)
        def bake(out: Output, job: BakeJob, given: frozenset[str]) -> None:
            """Bake."""
            out.show(asdict(job) | {"given": sorted(given)})

        other = typer.Typer(pretty_exceptions_enable=False)
        other.callback()(app_module.top)
        other.command(cls=HelpfulCommand)(bake)
        monkeypatch.setattr(app_module, "app", other)

    return add


def test_without_the_field_there_is_no_such_option(cli: Run, baker: Baker) -> None:
    baker(BakeJob)
    assert "No such option: --loaves" in cli("bake", "rye", "--loaves", 4).err
    assert cli("bake", "rye", "--json").document == {
        "flour": "rye",
        "oven": "gas",
        "given": ["flour"],
    }


def test_a_field_is_an_option_a_variable_and_a_key(
    cli: Run, baker: Baker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baker(BakeMoreJob)
    bake: tuple[Any, ...] = ("bake", "rye", "--json")
    assert cli(*bake).document["loaves"] == 3
    file = tmp_path / "job.toml"
    file.write_text('[batch]\nloaves = 4\n[read]\ntopping = ["poppy"]\n')
    bake = (*bake, "--config", file)
    assert (cli(*bake).document["loaves"], cli(*bake).document["toppings"]) == (4, ["poppy"])
    monkeypatch.setenv("LATENTCLI_LOAVES", "5")
    monkeypatch.setenv("LATENTCLI_TOPPING", "salt")
    monkeypatch.setenv("LATENTCLI_COOK", "wood")  # an option without a variable
    assert "LATENTCLI_COOK, which is not a variable of latentcli" in cli(*bake).err
    monkeypatch.delenv("LATENTCLI_COOK")
    found = cli(*bake).document
    assert (found["loaves"], found["toppings"], found["cook"]) == (5, ["salt"], "gas")
    found = cli(*bake, "--loaves", 6, "--seeds", "1,2", "--seeds", 3, "--steam").document
    assert (found["loaves"], found["seeds"], found["steam"]) == (6, [1, 2, 3], True)
    assert found["given"] == ["flour", "loaves", "seeds", "steam", "toppings"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--loaves", "10"], "--loaves is 10; it must be at least 1 and at most 9."),
        (["--loaves", "0"], "--loaves is 0; it must be at least 1 and at most 9."),
        (["--loaves", "many"], "--loaves is 'many'; expected a whole number."),
        (["--oven", "coal"], "--oven is 'coal'; allowed are gas, wood."),
        (["--cook", "coal"], "--cook is 'coal'; allowed are gas, wood."),
        (["--seeds", "1,x"], "--seeds is ['1', 'x']; expected a whole number or a list of them."),
        (["--config", "loaf"], "[batch] has no key 'loaf' for bake (did you mean 'loaves'?);"),
        (["--config", "seed"], "[read] has no key 'loaves' for bake; it belongs in [batch];"),
        (["--config", "oven"], "[encode] has no key 'oven' for bake; it belongs in [model];"),
        (["--config", "text"], "[batch] loaves is '3'; expected a whole number."),
    ],
)
def test_wrong_values_are_told(
    cli: Run,
    baker: Baker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    baker(BakeMoreJob)
    monkeypatch.chdir(tmp_path)
    Path("loaf").write_text("[batch]\nloaf = 3\n")
    Path("seed").write_text("[read]\nloaves = 3\n")
    Path("oven").write_text("[encode]\noven = 'gas'\n")
    Path("text").write_text("[batch]\nloaves = '3'\n")
    shown = cli("bake", "rye", *words)
    assert (shown.code, shown.out) == (2, "")
    assert told in shown.err


def test_what_is_needed_is_asked_for(cli: Run, baker: Baker) -> None:
    baker(BakeMoreJob)
    shown = cli("bake")
    assert shown.code == 2
    assert "error: Give the flour. latentcli bake --help shows how." in shown.err


def test_the_help_has_panels_in_an_order_for_people(
    cli: Run, baker: Baker, monkeypatch: pytest.MonkeyPatch
) -> None:
    baker(BakeMoreJob)
    monkeypatch.setenv("COLUMNS", "100")
    lines = cli("bake", "--help").out.splitlines()
    panels = [line.split()[1] for line in lines if line.startswith("╭")]
    assert panels == ["Input", "Model", "Speed", "Latents", "General"]
    flags = [line.split()[1].partition("/")[0] for line in lines if line.startswith("│     --")]
    assert flags == [
        *("--seeds", "--topping", "--oven", "--cook", "--loaves", "--steam"),
        *("--config", "--json", "--quiet", "--help-all", "--help"),
    ]
    (loaves,) = (line for line in lines if "--loaves" in line)
    assert loaves.split()[1:5] == ["--loaves", "N", "Loaves.", "Default:"]


def test_a_shell_is_offered_the_choices(baker: Baker) -> None:
    baker(BakeMoreJob)
    root = get_command(app_module.app)
    bake = root.commands["bake"]  # type: ignore[attr-defined]
    (oven,) = (one for one in bake.params if one.name == "oven")
    with bake.make_context("bake", ["rye"]) as context:
        offered = [item.value for item in oven.shell_complete(context, "w")]
    assert offered == ["wood"]
