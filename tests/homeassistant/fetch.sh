#!/usr/bin/env bash
# Makes in .brokers/homeassistant a Debian sid, for its Python 3.14, and in that a Home Assistant with
# what the integrations of the test need.  It is started in there (chroot): nothing of this system changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/debian.sh
root="$PWD/.brokers/homeassistant"
[ -d "$root" ] && exit 0
needs_root homeassistant-test
mkdir -p .brokers
echo "homeassistant-test: fetching Debian sid with Python 3.14"
debian sid "$root.new" python3,python3-dev,python3-venv,g++,ca-certificates,tzdata
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
' - "$HOMEASSISTANT" >.brokers/log 2>&1 || { tail -5 .brokers/log >&2; exit 1; }
mv "$root.new" "$root"
