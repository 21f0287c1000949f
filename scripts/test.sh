#!/usr/bin/env bash
# Everything that must hold before a commit: lint, format, types, tests.
#
#   bash scripts/test.sh                 without the tests that take minutes each
#   bash scripts/test.sh --slow          all tests
#   bash scripts/test.sh tests/cli -k x  other words go to pytest
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh

chosen=(-m "not slow")
words=()
for word in "$@"; do
  # The slow ones get half an hour, unless they say another time themselves.
  if [[ $word == --slow ]]; then chosen=(--timeout 1800); else words+=("$word"); fi
done

step() {
  printf '\n$ %s\n' "$*"
  ".venv/bin/$1" "${@:2}"
}

# Makes the bytecode that every process of the tests wants, while mypy leaves a core idle.
compile_modules() {
  local packages
  packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  .venv/bin/python -m compileall -qq -x '/tests?/' latentcli \
    "$packages"/{torch,numpy,sympy,scipy,pandas,matplotlib,torchmetrics} >/dev/null 2>&1 || true
}

make_venv
install_extras test,dev
compile_modules &
step ruff check .
step ruff format --check .
step mypy
wait
# Many tests wait for processes of their own: one more than there are cores keeps these busy.
PYTEST_XDIST_AUTO_NUM_WORKERS=$(.venv/bin/python -c \
  'from latentcli.jobs.runtime.machine import cores; print(cores() + 1)')
export PYTEST_XDIST_AUTO_NUM_WORKERS
step pytest -n auto --dist loadfile --durations=10 ${chosen[@]+"${chosen[@]}"} ${words[@]+"${words[@]}"}
