"""`latentcli models` and `latentcli models show`: the list, the card, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from clikit import Run

from latentcli.jobs.runtime.model_cards import list_models, model_names, show_model


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_the_list_as_before(cli: Run) -> None:
    shown = cli("models")
    assert (shown.code, shown.err) == (0, "")
    *rows, needs = shown.out.splitlines()[2:]
    assert [line.split()[0] for line in rows] == model_names()
    assert needs == (
        "These need pip install 'latentcli[diffusers]': flux2, flux2_small_decoder, sdxl, svd"
    )
    assert cli("models", "--json").document == list_models()


def test_help_names_what_is_below(cli: Run) -> None:
    for words in (("models", "--help"), ("models", "-h")):
        shown = cli(*words)
        assert shown.code == 0
        assert "List the models" in shown.out
        assert "show" in shown.out
        assert "75 interrupted" in shown.out
    shown = cli("models", "show", "--help")
    assert "NAME" in shown.out
    assert "--json" in shown.out


def test_a_card(cli: Run) -> None:
    shown = cli("models", "show", "full_capacitor")
    assert (shown.code, shown.err) == (0, "")
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines[0] == "full_capacitor"
    assert "parameters 114,690,816: encoder 52.8M, decoder 61.9M" in lines
    assert "PSNR dB 36.62 4.63 36.55 29.14 44.05" in lines


@pytest.mark.parametrize(
    "words",
    [
        ("models", "show", "fcdm_nano", "--json"),
        ("models", "show", "--json", "fcdm_nano"),
        ("models", "--json", "show", "fcdm_nano"),
    ],
)
def test_a_card_as_json(cli: Run, words: tuple[str, ...]) -> None:
    assert cli(*words).document == show_model("fcdm_nano")


def test_json_by_variable(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLI_JSON", "1")
    assert cli("models").document == list_models()
    assert cli("models", "show", "fcdm_nano").document["name"] == "fcdm_nano"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("models", "show", "full_capacitr"), "Did you mean full_capacitor? Presets are: "),
        (("models", "show"), "Name the model, such as latentcli models show fcdm_nano"),
        (("models", "shw"), "No such command 'shw'. Did you mean 'show'?"),
        (("models", "show", "a", "b"), "unexpected extra argument"),
        (("models", "--wide"), "No such option: --wide"),
    ],
)
def test_wrong_usage(cli: Run, words: tuple[str, ...], told: str) -> None:
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert "Traceback" not in result.err


def test_an_error_as_json_and_with_debug(cli: Run) -> None:
    result = cli("models", "show", "nothing", "--json")
    assert result.document == {"error": result.document["error"], "exit_code": 2}
    assert "Traceback" in cli("models", "show", "nothing", "--debug").err


def test_the_list_loads_no_torch() -> None:
    code = (
        "import sys\nfrom latentcli.cli.app import main\n"
        "code = main(['models', '--json'])\n"
        "print(code, *({'torch', 'PIL', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0"]
    assert len(json.loads(done.stdout)) == len(model_names())
