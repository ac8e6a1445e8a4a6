#!/usr/bin/env bash
# Makes in .crash what the crash run needs besides the system's packages, which stay as they are:
# Mosquitto 2.1 with its SQLite persistence, where none is installed, from Debian sid, with the
# libraries that it is linked to; and, where there is a compiler, the clock that can be moved.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../../../.."
state="$PWD/.crash"
apt="$state/apt"

has_mosquitto() {
  [ -d "$state/mosquitto" ] && return 0
  PATH="$PATH:/usr/sbin" mosquitto -h 2>/dev/null | grep -qE '^mosquitto version (2\.[1-9]|[3-9])' &&
    ls /usr/lib/mosquitto_persist_sqlite.so /usr/lib/*/mosquitto/mosquitto_persist_sqlite.so 2>/dev/null | grep -q .
}
say() { echo "crash: $*" >&2; }

mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1; }

# Debian's mirror as this machine knows it, and nothing of what is installed here.
configure() {
  local mirror
  mirror="$(mirror)"
  [ -n "$mirror" ] || { apt-get update -qq && mirror="$(mirror)"; }
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts" "$apt/debs"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources"
  : >"$apt/status"
  cat >"$apt/conf" <<END
Dir::Etc::SourceList "$apt/sources";
Dir::Etc::SourceParts "$apt/parts";
Dir::Etc::PreferencesParts "$apt/parts";
Dir::Cache "$apt/cache";
Dir::State::Lists "$apt/lists";
Dir::State::status "$apt/status";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "$(id -un)";
END
}

# The libraries alone: a program that runs by its path needs no accounts and no services.
fetch_mosquitto() {
  local names debs="$apt/debs"
  say "fetching Debian sid's mosquitto"
  configure
  export APT_CONFIG="$apt/conf"
  apt-get update -qq
  names="$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances mosquitto | grep -E '^(mosquitto|zlib1g|lib[^:]*)$' | sort -u)"
  # shellcheck disable=SC2086
  (cd "$debs" && apt-get download -qq $names)
  unset APT_CONFIG
  rm -rf "$state/mosquitto"
  for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$state/mosquitto.new"; done
  for folder in "$state"/mosquitto.new/usr/lib/*-linux-gnu*; do
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -n "$folder"
  done
  mv "$state/mosquitto.new" "$state/mosquitto"
  rm -rf "$apt"
}

mkdir -p "$state"
rm -rf "$state/mosquitto.new" "$apt"
has_mosquitto || fetch_mosquitto
if command -v cc >/dev/null; then
  cc -O2 -Wall -Wextra -shared -fPIC -o "$state/clock.so" "$here/clock.c"
fi
