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
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from harness.slow import slow

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

OPTIONS = {"runtime", "settings", "config"}
VERB = {*OPTIONS, "cluster", "inference", "loader"}
TENSORS = {"keys", "storage", "layout", "tensors"}
ROOMS = {
    "jobs": {
        "runtime": set[str](),
        "settings": {"runtime"},
        "config": {"runtime", "settings"},
        "cluster": OPTIONS,
        "inference": OPTIONS,
        "loader": OPTIONS,
        "encode": VERB,
        "roundtrip": VERB,
        "store": VERB,
        "video": VERB,
        "decode": {*VERB, "store"},
        "bench": {*VERB, "encode"},
        "training": {*VERB, "store"},
        "export": {*VERB, "store"},
    },
    "shards": {
        "keys": set[str](),
        "storage": set[str](),
        "layout": {"keys", "storage"},
        "tensors": {"keys", "storage", "layout"},
        "tar": TENSORS,
        "tables": {*TENSORS, "tar"},
        "sources": {*TENSORS, "tar"},
        "store": {*TENSORS, "tar"},
    },
}
"""Room -> rooms of the same package that it may import; a room is a package or a file in it.

A job's verb imports no other verb, but for the arrows decode -> store, bench -> encode,
training -> store and export -> store.
"""
MAX_ROOMS = {"jobs": 14, "shards": 8}
MAX_FLOORS = {"jobs": 6, "shards": 6}

ENCODE = (
    {"plan", "identity", "unit", "captions", "first_inputs", "field_counts", "findings"},
    {"survey", "rewrite"},
    {"worklist"},
    {"run"},
    {"texts", "failures"},
    {"kept", "sinks", "document", "sync", "way_out"},
    {"stream", "clip_stream", "cost_probe", "dry_run"},
    {"share"},
    {"to_stdout", "from_stdin", "ray_actor", "ray_driver"},
    {"job"},
)
"""The files of jobs/encode from the lowest up: none imports one that stands above it."""

HEAVY = ("torch", "numpy", "PIL", "safetensors", "huggingface_hub", "webdataset")
LIGHT_MODULES = (
    "latentcli",
    "latentcli.cli.app",
    "latentcli.cli.start",
    "latentcli.core.errors",
    "latentcli.core.types",
    "latentcli.jobs.config",
    "latentcli.models",
    "latentcli.models.presets",
)

LAZY = re.compile(r"latentcli\.[a-z_][\w.]*")
"""A module's name in a string, as importlib takes it."""

VERB_FIRST = re.compile(r"[A-Z][a-z]+s\b")
"""Reads, Writes, Builds: the third person of a verb."""
TELEGRAM = re.compile(r"\b(in|out)[;.]")
"""A path in; its bytes out."""
NAMED = re.compile(r"`(\w[\w/]*\.py):(\w+)`")
"""A function and its file, as docs/internals/architecture.md names them."""

MAX_FILE_LINES = 450
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


def room_of(name: str) -> str:
    """tar for latentcli/shards/tar/read.py, keys for latentcli/shards/keys.py."""
    return Path(name).parts[2].removesuffix(".py")


def file_of(target: str) -> str | None:
    """The file that defines a dotted name, or None where it is none of ours."""
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        stem = "/".join(parts[:count])
        for name in (f"{stem}.py", f"{stem}/__init__.py"):
            if name in MODULES:
                return name
    return None


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


@cache
def imported_files(name: str) -> list[tuple[int, str]]:
    """(line, file) of every import of another file of the package."""
    own_package = name.rpartition("/")[0].replace("/", ".")
    return [
        (line, other)
        for line, target in imported(parsed(name))
        # The start of an f-string that names a file beside this one: which one, a run decides.
        if target != f"{own_package}." and (other := file_of(target)) not in (None, name)
    ]


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


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_are_known_and_few(package):
    rooms = {room_of(name) for name in MODULES if package_of(name) == package} - {"__init__"}
    assert rooms <= ROOMS[package].keys()
    assert len(rooms) <= MAX_ROOMS[package]


@pytest.mark.parametrize("name", [name for name in MODULES if package_of(name) in ROOMS])
def test_rooms_import_one_way(name):
    package, room = package_of(name), room_of(name)
    for line, other in imported_files(name):
        if package_of(other) == package and room_of(other) != room:
            allowed = ROOMS[package].get(room, set())
            assert room_of(other) in allowed, f"{name}:{line}: {room} must not import {other}"


@pytest.mark.parametrize("package", ROOMS)
def test_floors_are_few(package):
    inside = [name for name in MODULES if package_of(name) == package]
    below: dict[str, set[str]] = {room_of(name): set() for name in inside}
    for name in inside:
        used = {room_of(other) for _, other in imported_files(name) if other in inside}
        below[room_of(name)] |= used - {room_of(name)}
    floor: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        floor[room] = 1 + max((floor[other] for other in below[room]), default=0)
    assert max(floor.values()) <= MAX_FLOORS[package], floor


def test_files_of_encode_import_downwards():
    floor = {
        f"latentcli/jobs/encode/{file}.py": i for i, files in enumerate(ENCODE) for file in files
    }
    inside = [name for name in MODULES if Path(name).parent.as_posix() == "latentcli/jobs/encode"]
    assert floor.keys() == set(inside) - {"latentcli/jobs/encode/__init__.py"}
    for name in floor:
        for line, other in imported_files(name):
            assert floor.get(other, 0) <= floor[name], f"{name}:{line} imports {other} above it"


def test_no_circle_of_files():
    graph = {name: {other for _, other in imported_files(name)} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other in a circle: {' <- '.join(error.args[1])}")


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


def test_a_job_of_a_bundled_model_does_not_load_the_client_of_the_hub():
    code = (
        "import sys, latentcli.jobs.encode.job; from latentcli import load_model;"
        "load_model('linear16'); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"huggingface_hub", "yaml", "diffusers"} & set(ran.stdout.split())


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
    assert VERB_FIRST.match(first), f"{name}: {first!r} does not begin with what the module does"
    assert first.endswith("."), f"{name}: {first!r} is no whole sentence"
    assert not TELEGRAM.search(first), f"{name}: {first!r} is a telegram"


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


def test_the_page_of_the_architecture_names_what_there_is():
    text = (ROOT / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) > 15
    for file, function in named:
        text_of = (PACKAGE / file).read_text(encoding="utf-8")
        found = re.search(rf"^(def |class )?{function}\b", text_of, re.MULTILINE)
        assert found, f"{file} has no {function}"
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert all(f"latentcli/{folder}/" in text for folder in folders)


def test_tests_stand_where_the_package_has_a_folder():
    package = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")}
    tests = {
        path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert tests == package


def test_a_whole_test_is_no_slow_case():
    with pytest.raises(TypeError, match="mark a whole test"):
        slow(test_tests_stand_where_the_package_has_a_folder)
    assert slow("tar", 2).values == ("tar", 2)


def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_tests_take_nothing_out_of_scripts():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert not [name for name in scripts if re.fullmatch("test_.*|.*_test", name)]
    for name in (name for name in OUR_FILES if name.startswith("tests/")):
        found = {target.partition(".")[0] for _, target in imported(parsed(name))}
        assert not found & {"scripts", *scripts}, f"{name} imports {found & scripts}"
