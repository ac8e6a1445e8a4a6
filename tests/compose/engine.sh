#!/usr/bin/env bash
# A Docker engine for the tests: the one that answers, or one of Debian's.
#
# `engine.sh up` installs Debian's packages where there is no engine, starts it where none runs and
# writes its process id to .compose-test/dockerd.pid; `engine.sh clear` takes away what a run that
# was killed left on it; `engine.sh down` ends what `up` started.
set -euo pipefail
state="$(cd "$(dirname "$0")/../.." && pwd)/.compose-test"
mkdir -p "$state"

say() { echo "compose-test: $*" >&2; }

install_engine() {
  local wanted=() apt="$state/apt" suite release mirror
  command -v docker >/dev/null || wanted+=(docker-cli)
  command -v dockerd >/dev/null || wanted+=(docker.io containerd)
  docker compose version >/dev/null 2>&1 || wanted+=(docker-compose)
  docker buildx version >/dev/null 2>&1 || wanted+=(docker-buildx)
  [ "${#wanted[@]}" -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || { say "no engine here; run this once as root, or install one"; exit 1; }
  say "installing Debian's packages ${wanted[*]}"

  # Debian 12 has an engine without Compose 2, so what is missing comes from Debian 13, which
  # the system's own configuration is not told about.
  apt-get update -qq
  mkdir -p "$apt/lists/partial"
  mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1)"
  release="$(. /etc/os-release && echo "$VERSION_CODENAME")"
  for suite in $(printf '%s\n' "$release" trixie | sort -u); do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$apt/sources"
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 50\n' >"$apt/preferences"
  [ "$release" != trixie ] || : >"$apt/preferences"
  cat >"$apt/conf" <<END
Dir::Etc::SourceList "$apt/sources";
Dir::Etc::SourceParts "-";
Dir::Etc::Preferences "$apt/preferences";
Dir::Etc::PreferencesParts "-";
Dir::State::Lists "$apt/lists";
END
  export APT_CONFIG="$apt/conf"
  apt-get update -qq
  # A package starts its service where an init system runs; here the engine is started below.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${wanted[@]/%//trixie}" iptables >"$state/apt.log" 2>&1 || { tail -5 "$state/apt.log" >&2; exit 1; }
}

up() {
  install_engine
  docker info >/dev/null 2>&1 && return 0
  say "starting an engine"
  (
    # It outlives whoever asked for it, and must not hold their locks.
    for fd in "/proc/$BASHPID/fd/"*; do
      fd="${fd##*/}"
      [ "$fd" -lt 3 ] || [ "$fd" = 255 ] || exec {fd}>&-
    done
    exec nohup dockerd >"$state/dockerd.log" 2>&1 </dev/null
  ) &
  echo $! >"$state/dockerd.pid"
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && return 0
    kill -0 "$(cat "$state/dockerd.pid")" 2>/dev/null || break
    sleep 0.5
  done
  say "the engine does not start:"
  tail -5 "$state/dockerd.log" >&2
  exit 1
}

clear() {
  local kind
  # A swarm that is somebody's own does not have this label.
  if [ "$(docker node inspect self -f '{{index .Spec.Labels "raven.test"}}' 2>/dev/null)" = yes ]; then
    docker swarm leave --force >/dev/null
  fi
  docker ps --all --quiet --filter name=^raven-test- | xargs --no-run-if-empty docker rm --force >/dev/null
  for kind in volume network; do
    docker "$kind" ls --quiet --filter name=^raven-test- |
      xargs --no-run-if-empty docker "$kind" rm >/dev/null
  done
}

down() {
  [ -f "$state/dockerd.pid" ] || return 0
  say "ending the engine"
  kill "$(cat "$state/dockerd.pid")" 2>/dev/null || true
  rm -f "$state/dockerd.pid"
}

"$1"
