#!/bin/bash
# What compose relies on of the official image's entrypoint: its order of steps and its variables.
set -euo pipefail
if [ "$1" = mongod ]; then
  password="$(<"${MONGO_INITDB_ROOT_PASSWORD_FILE:?}")"
  if [ ! -d /data/db/wt ]; then
    mongod --bind_ip 127.0.0.1 &
    until mongosh --quiet --eval 'quit(db.hello().isWritablePrimary ? 0 : 1)' 2>/dev/null; do sleep 0.2; done
    echo "db.getSiblingDB(\"admin\").createUser({\"user\": \"${MONGO_INITDB_ROOT_USERNAME:?}\", \"pwd\": \"$password\", \"roles\": [{\"role\": \"root\", \"db\": \"admin\"}]})" >/tmp/root.js
    mongosh /tmp/root.js
    rm /tmp/root.js
    for file in /docker-entrypoint-initdb.d/*; do
      case "$file" in
        *.sh) . "$file" ;;
        *.js) echo "running $file"; mongosh "$file" ;;
        *) echo "ignoring $file" ;;
      esac
    done
    kill %1
    wait %1 || true
  fi
  set -- "$@" --auth --bind_ip 0.0.0.0
fi
exec "$@"
