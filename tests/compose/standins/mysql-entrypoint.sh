#!/usr/bin/env bash
# What compose relies on of the official image's entrypoint: its order of steps and its variables.
set -euo pipefail
[ "${1:0:1}" != - ] || set -- mysqld "$@"
if [ "$1" = mysqld ] && [ ! -d /var/lib/mysql/mysql ]; then
  password="$(<"${MYSQL_ROOT_PASSWORD_FILE:?}")"
  echo "[Entrypoint]: Initializing database files"
  "$@" --initialize-insecure --default-time-zone=SYSTEM
  "$@" --daemonize --skip-networking --default-time-zone=SYSTEM
  mysql -u root --protocol=socket mysql <<END
ALTER USER 'root'@'localhost' IDENTIFIED BY '$password';
END
  [ "${MYSQL_ROOT_HOST:-%}" = localhost ] || { echo "the stand-in knows MYSQL_ROOT_HOST=localhost only" >&2; exit 1; }
  if [ -n "${MYSQL_DATABASE:-}" ]; then
    echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`" | mysql --defaults-extra-file=<(printf "[client]\nuser=root\npassword=%s\n" "$password") --protocol=socket
  fi
  for file in /docker-entrypoint-initdb.d/*; do
    case "$file" in
      *.sh) . "$file" ;;
      *.sql) mysql --defaults-extra-file=<(printf '[client]\nuser=root\npassword=%s\n' "$password") --protocol=socket "${MYSQL_DATABASE:-mysql}" <"$file" ;;
    esac
  done
  mysqladmin --defaults-extra-file=<(printf '[client]\nuser=root\npassword=%s\n' "$password") --protocol=socket shutdown
  echo "[Entrypoint]: MySQL init process done. Ready for start up."
fi
exec "$@"
