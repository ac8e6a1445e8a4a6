#!/usr/bin/env bash
# Makes in .brokers/homeassistant a Debian sid, for its Python 3.14, and in that a Home Assistant with
# what the integrations of the test need.  It is started in there (chroot): nothing of this system changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
root="$PWD/.brokers/homeassistant"
[ -d "$root" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "homeassistant-test: only root can make and enter another system" >&2; exit 1; }
command -v debootstrap >/dev/null || {
  echo "installing Debian's package debootstrap"
  apt-get update -qq && apt-get install -y -qq debootstrap >/dev/null
}
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1; }
[ -n "$(mirror)" ] || apt-get update -qq
mkdir -p .brokers
rm -rf "$root.new"
trap 'tail -5 .brokers/log >&2' ERR
echo "homeassistant-test: fetching Debian sid with Python 3.14"
debootstrap --variant=minbase --include=python3,python3-dev,python3-venv,g++,ca-certificates,tzdata sid "$root.new" "$(mirror)" >.brokers/log 2>&1
for file in hosts resolv.conf ssl/certs/ca-certificates.crt; do cp -L "/etc/$file" "$root.new/etc/$file"; done
echo "homeassistant-test: fetching Home Assistant ${HOMEASSISTANT:=2026.11.*}"
cp tests/homeassistant/requirements.py "$root.new/srv/"
chroot "$root.new" bash -euc '
  unset PIP_FIND_LINKS
  python3 -m venv /srv/venv
  pip() { /srv/venv/bin/pip --disable-pip-version-check --quiet "$@"; }
  pip install "homeassistant==$1"
  /srv/venv/bin/python /srv/requirements.py >/srv/requirements.txt
  pip install -r /srv/requirements.txt
' - "$HOMEASSISTANT" >.brokers/log 2>&1
mv "$root.new" "$root"
