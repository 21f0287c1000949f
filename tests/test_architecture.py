"""The house rules that a machine can check: who may import whom, what costs time, what is told."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "latentcli"

MIDDLE = {"images", "models", "latents", "shards", "metrics", "reports", "exports"}
MAY_IMPORT = {
    "core": set[str](),
    **{name: {"core"} for name in MIDDLE},
    "jobs": {"core", *MIDDLE},
    "cli": {"core", "jobs", "reports"},
    "__main__": {"cli"},
    "__init__": {"core", "jobs", *MIDDLE},
}
"""cli -> jobs -> the middle -> core. The package itself is its version and lazy public names."""

HEAVY = ("torch", "numpy", "PIL", "safetensors", "huggingface_hub", "webdataset")
LIGHT_MODULES = (
    "latentcli",
    "latentcli.cli.app",
    "latentcli.core.errors",
    "latentcli.core.types",
    "latentcli.jobs.config",
    "latentcli.models",
    "latentcli.models.presets",
)

LAZY = re.compile(r"latentcli\.[a-z_][\w.]*")
"""A module's name in a string, as importlib takes it."""

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

MODULES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))
OUR_FILES = [
    *MODULES,
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("tests", "scripts")
        for path in (ROOT / folder).rglob("*.py")
    ),
]


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def package_of(name: str) -> str:
    """images for latentcli/images/codec.py, __main__ for latentcli/__main__.py."""
    return Path(name).relative_to("latentcli").parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, lazy ones and those in strings too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            # `from latentcli import jobs` names a package only with its last word.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and LAZY.fullmatch(str(node.value)):
            yield node.lineno, str(node.value)


def test_the_rule_knows_every_package():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= MAY_IMPORT.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    home = package_of(name)
    for line, target in imported(parsed(name)):
        top, _, rest = target.partition(".")
        assert top not in ("harness", "scripts", "tests"), f"{name}:{line} imports {target}"
        other = rest.partition(".")[0]
        if top == "latentcli" and (PACKAGE / other).is_dir() and other not in ("", home):
            assert other in MAY_IMPORT[home], f"{name}:{line}: {home} must not import {target}"


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_absolute(name):
    relative = [n for n in ast.walk(parsed(name)) if isinstance(n, ast.ImportFrom) and n.level]
    assert not relative, f"{name}:{relative[0].lineno} would escape the import rule"


def test_every_hard_dependency_is_imported():
    """What the package itself never imports belongs to an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split("[<>=~! ;[]", line)[0] for line in project["dependencies"]}
    names = {target for name in MODULES for _, target in imported(parsed(name))}
    tops = {name.partition(".")[0] for name in names}
    assert {name for name in wanted if {"pillow": "PIL"}.get(name, name) not in tops} == set()


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTHON"))}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & set(HEAVY)


def test_core_runs_without_the_other_packages():
    """No lazy import hides in core: each of its modules works alone."""
    names = [name for name in MODULES if package_of(name) == "core"]
    dotted = [name.removesuffix(".py").replace("/", ".") for name in names]
    code = f"import sys, {', '.join(dotted)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.split(".")[1] for name in ran.stdout.split() if name.startswith("latentcli.")}
    assert found == {"core"}


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is(name):
    text = ast.get_docstring(parsed(name))
    assert text, f"{name} has no docstring"
    first = text.splitlines()[0]
    assert len(first.split()) >= 3, f"{name}: {first!r} says too little"
    assert first.endswith((".", ";", ":")), f"{name}: {first!r} is no whole sentence"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented(name):
    for node in parsed(name).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}:{node.lineno}: {node.name} has no docstring"


@pytest.mark.parametrize("name", OUR_FILES)
def test_files_stay_small(name):
    lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{name} has {lines} lines; split it by ideas"


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_small(name):
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{name}:{node.lineno}: {node.name} has {length}"


@pytest.mark.parametrize("module", ["latentcli", "latentcli.models"])
def test_public_names_resolve(module):
    loaded = import_module(module)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = loaded.no_such_name


def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_tests_take_nothing_out_of_scripts():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert not [name for name in scripts if re.fullmatch("test_.*|.*_test", name)]
    for name in (name for name in OUR_FILES if name.startswith("tests/")):
        found = {target.partition(".")[0] for _, target in imported(parsed(name))}
        assert not found & {"scripts", *scripts}, f"{name} imports {found & scripts}"
