#!/bin/sh
# Makes what compose.yaml asks for: .env for PostgreSQL and Garage, and a file a token in secrets/. What is there already
# stays.
set -eu
cd "$(dirname "$0")"
umask 077
[ -e .env ] || cat >.env <<EOF
POSTGRES_PASSWORD=$(openssl rand -hex 24)
GARAGE_RPC_SECRET=$(openssl rand -hex 32)
GARAGE_ACCESS_KEY=GK$(openssl rand -hex 12)
GARAGE_SECRET_KEY=$(openssl rand -hex 32)
EOF
mkdir -p secrets
for name in admin worker metrics; do
    file=secrets/$name.token
    [ -e "$file" ] || echo "fl_$(openssl rand -hex 32)" >"$file"
    # The user in the container reads it; the folder keeps everybody else here from it.
    chmod 444 "$file"
done
