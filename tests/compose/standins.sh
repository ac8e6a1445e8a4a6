#!/usr/bin/env bash
# Sees that every official image that docker-compose.yml names is there: the official one where it
# is or can be pulled, else one that stands in for it, built from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")"
. ../debian.sh
state="$(cd ../.. && pwd)/.compose-test"
say() { echo "compose-test: $*" >&2; }

base() {
  docker image inspect raven-stand-in/debian:trixie-slim >/dev/null 2>&1 && return 0
  local root="$state/debian"
  say "making a Debian image to build stand-ins on"
  debian trixie "$root" apt
  # What Debian's own slim image leaves out, now and when packages are installed.
  printf 'path-exclude /usr/share/%s/*\n' doc info locale man >"$root/etc/dpkg/dpkg.cfg.d/slim"
  rm -rf "$root"/usr/share/{doc,info,locale,man}/* "$root"/var/{cache/apt,lib/apt/lists,log}/*
  tar -C "$root" -c . | docker import - raven-stand-in/debian:trixie-slim >/dev/null
  rm -rf "$root"
}

# Python comes first: others stand on it.
for image in $(docker compose -f ../../docker-compose.yml config --format json |
    python3 -c 'import json, sys; print(*sorted(json.load(sys.stdin)["x-versions"].values(), reverse=True))'); do
  name="${image%%:*}"
  if docker image inspect "$image" >/dev/null 2>&1; then
    stand_in="$(docker image inspect -f '{{index .Config.Labels "raven.stand-in"}}' "$image")"
    [ "$stand_in" = yes ] || { say "$image is the official one"; continue; }
  elif docker pull -q "$image" >/dev/null 2>&1; then
    say "$image is the official one"
    continue
  fi
  base
  docker build --quiet --network host --label raven.stand-in=yes \
    --build-context certificates=/etc/ssl/certs -t "$image" -f "standins/$name.Dockerfile" standins >/dev/null
  say "$image is stood in for by: $(sed -n '1s/^# In place of [^ ]*: //p' "standins/$name.Dockerfile")"
done
