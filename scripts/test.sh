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
  if [[ $word == --slow ]]; then chosen=(); else words+=("$word"); fi
done

step() {
  printf '\n$ %s\n' "$*"
  ".venv/bin/$1" "${@:2}"
}

make_venv
install_extras test,dev
step ruff check .
step ruff format --check .
step mypy
# Many tests wait for processes of their own, so a process for each core is busy all the time.
step pytest -n auto --dist loadfile --durations=10 ${chosen[@]+"${chosen[@]}"} ${words[@]+"${words[@]}"}
