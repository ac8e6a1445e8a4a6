#!/usr/bin/env bash
# Makes in .brokers/sid a Debian sid with RabbitMQ 4, whose MQTT plugin has MQTT 5, and ejabberd.
# They are started in there (chroot), so that nothing of this system changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
root="$PWD/.brokers/sid"
[ -d "$root" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "brokers: only root can make and enter another system" >&2; exit 1; }
command -v debootstrap >/dev/null || {
  echo "installing Debian's package debootstrap"
  apt-get update -qq && apt-get install -y -qq debootstrap >/dev/null
}
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1; }
[ -n "$(mirror)" ] || apt-get update -qq
mkdir -p .brokers
rm -rf "$root.new"
echo "brokers: fetching Debian sid with rabbitmq-server and ejabberd"
debootstrap --variant=minbase --include=rabbitmq-server,ejabberd sid "$root.new" "$(mirror)" >.brokers/log 2>&1 || {
  tail -5 .brokers/log >&2
  exit 1
}
echo "127.0.0.1 localhost $(hostname)" >"$root.new/etc/hosts"
mv "$root.new" "$root"
