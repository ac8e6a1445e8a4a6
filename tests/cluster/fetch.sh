#!/usr/bin/env bash
# Installs what makes a Galera cluster of the MariaDB that is here: the replicator, and the scripts
# by which a node takes its data from another; no server of the system's own is started.
# RabbitMQ is the one of the other brokers' tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "cluster-test: only root can start servers as another user" >&2; exit 1; }
missing() { [ ! -e /usr/lib/galera/libgalera_smm.so ] || ! command -v rsync >/dev/null || ! command -v ss >/dev/null; }
if missing; then
  echo "installing Debian's packages galera-4, iproute2 and rsync"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends galera-4 iproute2 rsync >/dev/null
fi
tests/brokers/fetch.sh
scripts="$PWD/.brokers/mariadb-server"
[ -d "$scripts" ] && exit 0
mkdir -p .brokers/deb
(cd .brokers/deb && apt-get download -qq mariadb-server 2>/dev/null)
dpkg -x .brokers/deb/mariadb-server_*.deb "$scripts"
