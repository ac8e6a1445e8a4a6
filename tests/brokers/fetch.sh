#!/usr/bin/env bash
# Makes in .brokers/sid a Debian sid with RabbitMQ 4, whose MQTT plugin has MQTT 5, and ejabberd.
# They are started in there (chroot), so that nothing of this system changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/debian.sh
root="$PWD/.brokers/sid"
[ -d "$root" ] && exit 0
needs_root brokers
mkdir -p .brokers
echo "brokers: fetching Debian sid with rabbitmq-server and ejabberd"
debian sid "$root.new" rabbitmq-server,ejabberd
echo "127.0.0.1 localhost $(hostname)" >"$root.new/etc/hosts"
mv "$root.new" "$root"
