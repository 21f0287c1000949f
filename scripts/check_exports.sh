#!/usr/bin/env bash
# Reads what export writes with the libraries that it is written for, in these versions, and trains on
# a store with Lightning.
#
#   bash scripts/check_exports.sh        the tests of tests/exports, none of whose readers is left out
#   bash scripts/check_exports.sh -k mds other words go to pytest
#
# Their folder is .venv/consumers. Nothing that they depend on is installed with them, such as
# torchvision, of which not every index has a build for a CPU: no reader of latents needs it.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh

consumers=(
  mosaicml-streaming==0.13.0 xxhash zstd python-snappy cramjam Brotli catalogue
  litdata==0.2.76
  webshart==0.4.6
  lightning==2.6.6 lightning-utilities==0.15.3
)
folder=.venv/consumers

make_venv
install_extras test,dev
if [[ ! -f $folder/.installed || $(<"$folder/.installed") != "${consumers[*]}" ]]; then
  rm -rf "$folder"
  .venv/bin/python -m pip install -qq --no-deps --target "$folder" "${consumers[@]}"
  printf '%s\n' "${consumers[*]}" >"$folder/.installed"
fi
training=tests/jobs/training/test_training_consumers.py::test_lightning_sets_the_epoch
PYTHONPATH=$folder LATENTCLI_REQUIRE_CONSUMERS=1 .venv/bin/pytest -q tests/exports "$training" "$@"
