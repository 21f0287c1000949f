"""The documentation, held to its word: its commands and Python run, its tables are true."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from harness.pages import (
    DOCS,
    JOB_FILE,
    README,
    ROOT,
    VARYING,
    blocks,
    make_workspace,
    named,
    pages,
    plain,
    quotes,
    run,
    transcript,
)

from latentcli.cli.app import app
from latentcli.core import errors
from latentcli.models.presets import load_preset, preset_names

STORE = "photos.fcdm_nano.latents"
MAKES_STORE = "latentcli encode photos --model fcdm_nano --size 256"
"""The command by which the pages that speak of it have made STORE."""

TRANSCRIPTS = {
    "scripts/demo.sh": DOCS / "tutorial.md",
    "scripts/test.sh": DOCS / "internals" / "development.md",
}
RUN_ELSEWHERE = {
    "docs/guides/exports.md": "tests/jobs/export/test_export_page.py",
    "docs/internals/parity.md": "tests/test_parity_script.py",
}
"""Pages whose commands are run by tests of their own, which have what these need."""
PYTHON = ("README.md", "docs/guides/python.md")
"""Pages whose Python is run as it stands; that of others is run by tests of what it is about."""

RUN = [page for page in pages() if named(page) not in RUN_ELSEWHERE and [*quotes(page)]]


@pytest.fixture(scope="module")
def workshop(photographs, tmp_path_factory) -> Iterator[Path]:
    """A folder with what the pages speak of, and STORE."""
    folder = tmp_path_factory.mktemp("docs")
    make_workspace(folder, photographs)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LATENTCLI_")]:
            patch.delenv(name)
        patch.setenv("LATENTCLI_WEIGHTS", str(folder / "weights"))
        patch.chdir(folder)
        assert run(MAKES_STORE).exit_code == 0
        yield folder


@pytest.fixture
def workspace(workshop, tmp_path, monkeypatch) -> Path:
    """The working directory of one page."""
    folder = tmp_path / "work"
    shutil.copytree(workshop, folder, copy_function=shutil.copy2)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", RUN, ids=named)
def test_commands_succeed_and_say_what_is_quoted(workspace, page, capsys):
    if MAKES_STORE in [quote.command for quote in quotes(page)]:
        shutil.rmtree(workspace / STORE)
    for text in blocks(page, "toml"):
        (workspace / JOB_FILE).write_text(text)
    for quote in quotes(page):
        result = run(quote.command)
        assert result.exit_code == 0, f"$ {quote.command}\n{result.output}"
        said = {plain(line) for line in result.output.splitlines()}
        for line in map(plain, quote.output):
            known = line in said or VARYING.match(line)
            assert known, f"$ {quote.command}\ndoes not say\n{line}\nbut\n{result.output}"
    if named(page) in PYTHON:
        for source in blocks(page, "python"):
            exec(compile(source, named(page), "exec"), {"__name__": "page"})


def test_there_are_commands_of_every_verb():
    verbs = {quote.command.split()[1] for page in RUN for quote in quotes(page)}
    assert verbs >= {"encode", "decode", "roundtrip", "bench", "models", "inspect", "verify"}


def test_pages_that_are_run_elsewhere_are_there():
    for page, test in RUN_ELSEWHERE.items():
        assert [*quotes(ROOT / page)] and (ROOT / test).is_file()


def test_all_pages_stand_in_the_navigation():
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w/-]+\.md)"', text)
    assert sorted(listed) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )
    assert len(listed) == len(set(listed))


def anchors(page: Path) -> set[str]:
    """What links may name of a page: its headings as GitHub and the site spell them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=named)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            other = (page.parent / path).resolve() if path else page
            assert other.is_file(), f"{named(page)} links to {target}"
            assert not anchor or anchor in anchors(other), f"{named(page)} links to {target}"


def test_the_site_is_built_without_a_warning(tmp_path):
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: pip install 'latentcli[docs]'")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "No issues found" in said, said
    assert (tmp_path / "site" / "guides" / "encode" / "index.html").is_file()


def test_demo_transcript_is_of_this_script():
    lines = transcript(TRANSCRIPTS["scripts/demo.sh"], "scripts/demo.sh")
    script = (ROOT / "scripts" / "demo.sh").read_text(encoding="utf-8").replace("$out", "demo-out")
    ran = [line.removeprefix("run ") for line in script.splitlines() if line.startswith("run ")]
    expected = [f"$ {command.replace(chr(34), '')}" for command in ran]
    assert [line for line in lines if line.startswith("$ ")] == expected
    (ending,) = re.findall(r"<<END\n(.*)\nEND$", script, re.DOTALL | re.MULTILINE)
    assert [line for line in ending.splitlines() if line not in lines] == []


def test_test_transcript_is_of_this_script():
    lines = transcript(TRANSCRIPTS["scripts/test.sh"], "scripts/test.sh")
    script = (ROOT / "scripts" / "test.sh").read_text(encoding="utf-8")
    steps = re.findall(r"^step (\w+(?: \w+)?)", script, re.MULTILINE)
    shown = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    assert len(shown) == len(steps)
    assert all(line.startswith(step) for line, step in zip(shown, steps, strict=True))
    assert re.search(r"\d+ passed.* in [\d.]+s", lines[-1])
    assert "failed" not in lines[-1] and "error" not in lines[-1]


def known_options() -> set[str]:
    """The flags of all commands."""
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = [option for command in commands for option in command.params]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


OF_OTHERS = {
    *("--help", "--slow", "--check", "--write", "--durations", "--dist", "--nproc-per-node"),
    *("--sdpa", "--float"),
}
"""Flags of other programs and of scripts, and the one that every command has."""


@pytest.mark.parametrize("page", [README, *sorted((DOCS / "guides").glob("*.md"))], ids=named)
def test_named_options_exist(page):
    quoted = re.findall(r"`([^`\n]*)`", page.read_text(encoding="utf-8"))
    ours = " ".join(part for part in quoted if "latentcli" in part or part.startswith("--"))
    spoken = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours))
    assert spoken - OF_OTHERS <= known_options()


def test_named_variables_exist():
    known = {flag.removeprefix("--").replace("-", "_").upper() for flag in known_options()}
    ours = (ROOT / "latentcli").rglob("*.py")
    read = set(re.findall(r"LATENTCLI_([A-Z_]+)", " ".join(path.read_text() for path in ours)))
    for page in pages():
        named_here = set(re.findall(r"LATENTCLI_([A-Z_]+[A-Z])", page.read_text(encoding="utf-8")))
        assert named_here <= known | read | {"WEIGHTS", "REQUIRE_CUDA"}, named(page)


def script(name: str) -> ModuleType:
    """One of scripts/, which are in no package."""
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_models_table_is_that_of_the_presets():
    tables = script("model_table")
    presets = [load_preset(name) for name in preset_names()]
    wanted, page = tables.table(presets), tables.PAGE.read_text(encoding="utf-8")
    assert tables.with_table(page, wanted) == page, (
        "the page of models and configs/models disagree: run python scripts/model_table.py --write"
    )
    rows = [line for line in wanted.splitlines() if line.startswith("| `")]
    assert len(rows) == len(presets)
    (row,) = (row for row in rows if "`full_capacitor`" in row)
    cells = "114.7M | f16c128 | 32 | data-archetype/full_capacitor | encode, decode | see the"
    assert cells in row
    with pytest.raises(ValueError, match="end of models"):
        tables.with_table("no table", "")


def test_the_pages_of_options_are_those_of_the_commands():
    tables = script("command_table")
    again = "run python scripts/command_table.py --write"
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), again
    text = tables.JOB_FILES.read_text(encoding="utf-8")
    assert tables.with_keys(text, tables.keys()) == text, again
    with pytest.raises(ValueError, match="is missing"):
        tables.with_keys("no table", "")


def test_exit_codes_are_true():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {0, *(kind.exit_code for kind in kinds)}
    for page, pattern in (
        (README, r"Exit codes: (.*)\."),
        (DOCS / "reference" / "scripting.md", r"\n(0 done.*?)\)\."),
    ):
        (told,) = re.findall(pattern, page.read_text(encoding="utf-8"), re.DOTALL)[:1]
        assert {int(code) for code in re.findall(r"\b(\d+) [a-z]", told)} == codes


def test_documents_have_the_keys_that_are_told(workspace):
    """Those of encode, in the table of its page, are those of its document."""
    page = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    table = page.partition("| key of encode |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`(\w+)`", " ".join(r.split("|")[1] for r in table.splitlines()[2:])))
    (quote,) = quotes(DOCS / "reference" / "json.md")
    assert told == set(run(quote.command).output.split())


def test_named_files_exist():
    for page in pages():
        text = page.read_text(encoding="utf-8")
        found = re.findall(r"`((?:docs|configs|scripts|examples)/[\w./-]*\w)`", text)
        assert [name for name in found if not (ROOT / name).exists()] == [], named(page)
    (tree,) = re.findall(
        r"## Where things are\n+(.*?)\n\n",
        (DOCS / "internals" / "development.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    listed = {line.split()[0] for line in tree.splitlines()}
    assert [name for name in listed if not (ROOT / name).exists()] == []
    packages = {f"latentcli/{path.parent.name}/" for path in ROOT.glob("latentcli/*/__init__.py")}
    assert packages <= listed
