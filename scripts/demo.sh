#!/usr/bin/env bash
# The whole tool on real photographs: encode, decode, compare. Everything lands in demo-out/.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh

out=demo-out
# Photographs that lie inside scikit-image's wheel; its others are drawings or are downloaded.
photographs=(astronaut.png camera.png chelsea.png coffee.png coins.png grass.png
  hubble_deep_field.jpg motorcycle_left.png retina.jpg rocket.jpg)

run() {
  printf '\n$ %s\n' "$*"
  ".venv/bin/$1" "${@:2}"
}

copy_photographs() {
  local package name
  package=$(.venv/bin/python -c \
    'from importlib.util import find_spec; print(*find_spec("skimage").submodule_search_locations)')
  mkdir -p "$out/photos"
  for name in "${photographs[@]}"; do
    if [[ -f $package/data/$name ]]; then cp "$package/data/$name" "$out/photos/"; fi
  done
  compgen -G "$out/photos/*" >/dev/null || fail "scikit-image in .venv has no photographs" \
    "in $package/data; delete .venv and run this again"
}

make_venv
install_extras demo
# Of an earlier demo, which may have had another model; nothing else in the folder is touched.
rm -rf "$out/photos" "$out/photos.latents" "$out/pictures" "$out/report"
copy_photographs
printf '%d photographs from scikit-image are in %s/photos.\n' \
  "$(find "$out/photos" -type f | wc -l)" "$out"

run latentcli encode "$out/photos" -o "$out/photos.latents"
run latentcli decode "$out/photos.latents" -o "$out/pictures"
run latentcli roundtrip "$out/photos" --model fcdm_nano --baseline linear16 --report "$out/report"

cat <<END

The photographs are in $out/photos, the latent store is $out/photos.latents, and the pictures
that came back out of it are in $out/pictures. To compare them, open $out/report/index.html in a
browser.

Next, with  source .venv/bin/activate :
  latentcli inspect $out/photos.latents
  latentcli verify $out/photos.latents
  latentcli roundtrip $out/photos --steps 10
  latentcli encode YOUR_FOLDER --size 256
  latentcli models
END
