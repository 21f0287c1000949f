# Sourced by the other scripts: makes .venv in the checkout, with latentcli installed in it.
# Needs bash and Python 3.11 or newer ($PYTHON chooses one); uses the package index that pip uses.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
# Whoever imports a module first keeps its bytecode.
unset PYTHONDONTWRITEBYTECODE

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Prints the first Python that is new enough.
find_python() {
  local candidate candidates=(python3.11 python3 python3.12 python3.13 python3.14 python)
  if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer was found (tried: ${candidates[*]});" \
    "install one, or name it: PYTHON=/path/to/python bash $0"
}

# Whether .venv runs, has pip, is new enough and was made in this folder: a moved or copied one
# still calls the old place's programs.
venv_is_sound() {
  grep -qsF "$PWD/.venv" .venv/bin/activate &&
    .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_venv() {
  venv_is_sound && return
  local python
  python=$(find_python)
  printf 'Making .venv with %s.\n' "$("$python" --version)"
  "$python" -m venv --clear .venv || fail "$python cannot make a virtual environment;" \
    "on Debian and Ubuntu: apt install python3-venv"
}

# What an installation depends on, as one line.
install_digest() {
  .venv/bin/python - "$1" <<'PYTHON'
import hashlib, pathlib, sys
parts = [sys.version, sys.argv[1]]
parts += [pathlib.Path(name).read_text() for name in ("pyproject.toml", "constraints.txt")]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON
}

# install_extras EXTRAS: latentcli[EXTRAS], editable; does nothing where that is already so.
install_extras() {
  local extras=$1 stamp=".venv/.installed-$1" digest
  digest=$(install_digest "$extras")
  if [[ -f $stamp && $(<"$stamp") == "$digest" ]] && .venv/bin/latentcli --version >/dev/null 2>&1
  then
    return
  fi
  rm -f "$stamp"
  printf 'Installing latentcli[%s] into .venv. The first time this fetches PyTorch: minutes.\n' \
    "$extras"
  # pip would compile for more than a minute what is, for the most part, never imported.
  local install=(.venv/bin/python -m pip install -qq --no-compile -c constraints.txt)
  # torch first and alone, so that the build that constraints.txt names is the one taken.
  "${install[@]}" torch
  "${install[@]}" -e ".[$extras]"
  printf '%s\n' "$digest" >"$stamp"
}
