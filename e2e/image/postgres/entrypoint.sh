#!/bin/sh
# PostgreSQL for scenarios. With arguments it runs them instead (a pod for psql: `sleep infinity`).
#   POSTGRES_PASSWORD   of the superuser `postgres`; must be set
#   POSTGRES_HBA        lines of pg_hba.conf; default: passwords from everywhere
#   /init/*.sql         run once, in order, as the superuser
#   /tls/tls.crt, .key  turns TLS on
set -eu
[ $# -gt 0 ] && exec "$@"

if [ ! -f "$PGDATA/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
  initdb -D "$PGDATA" -U postgres --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync
  printf '%s\n' "${POSTGRES_HBA:-host all all all scram-sha-256}" "local all all scram-sha-256" >"$PGDATA/pg_hba.conf"
  printf "%s\n" "listen_addresses = '*'" "fsync = off" "shared_buffers = '32MB'" \
    "unix_socket_directories = '/tmp'" >>"$PGDATA/postgresql.conf"
  # Unheard from outside until everything is there.
  pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
  for file in /init/*.sql; do
    [ -f "$file" ] || continue
    PGPASSWORD=$POSTGRES_PASSWORD psql -h /tmp -U postgres -v ON_ERROR_STOP=1 -f "$file"
  done
  pg_ctl -D "$PGDATA" -w stop
fi

if [ -f /tls/tls.crt ]; then
  # The server refuses a key that others can read, and a Secret's files belong to root.
  mkdir -p /tmp/tls && cp /tls/tls.crt /tls/tls.key /tmp/tls/ && chmod 600 /tmp/tls/tls.key
  set -- -c ssl=on -c ssl_cert_file=/tmp/tls/tls.crt -c ssl_key_file=/tmp/tls/tls.key
fi
exec postgres -D "$PGDATA" "$@"
