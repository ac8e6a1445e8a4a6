#!/usr/bin/env bash
# An empty Debian of the release DEBIAN (trixie) that boots, in .installed/DEBIAN, with what
# raven-setup will ask Debian for in its cache, and what pipx will ask for in .installed/wheels-*:
# machines that the test boots have no network but their own.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/debian.sh
release="$1"
needs_root install-test
needs systemd-nspawn/systemd-container
mkdir -p .installed
base=".installed/$release"
[ ! -e "$base" ] || exit 0
echo "install-test: making an empty Debian $release"
new="$(realpath .installed)/$release.new"
debian "$release" "$new" systemd,systemd-sysv,dbus,udev,ca-certificates,pipx
cp -L /etc/resolv.conf "$new/etc/" 2>/dev/null || true
# Debian's installer writes this, and debootstrap does not.
printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost\n' >"$new/etc/hosts"
chroot "$new" sh -euc '
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends --download-only mosquitto mariadb-server
' >/dev/null
mv "$new" "$base"
