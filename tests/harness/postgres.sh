# A PostgreSQL server for tests: of its own, in a temporary folder, gone at the end. Sourced, never run.
# shellcheck shell=bash

# Debian keeps the server's programs out of the PATH.
postgres_program() { # NAME
    command -v "$1" 2>/dev/null || find /usr/lib/postgresql -path "*/bin/$1" 2>/dev/null | sort -V | tail -n 1 | grep .
}

# The server refuses to run as root.
as_postgres() {
    if ((EUID == 0)); then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi
}

# start_postgres DIR [OPTION...]: starts a server on a socket in DIR, which is made, and sets FINELINE_TEST_POSTGRES. Its
# language is not C, so that what is compared otherwise than byte by byte shows.
start_postgres() {
    local dir=$1 initdb
    shift
    initdb=$(postgres_program initdb) && pg_ctl=$(postgres_program pg_ctl) || {
        echo "there is no PostgreSQL server: install \`postgresql\`" >&2
        return 1
    }
    mkdir -p "$dir" && { ((EUID != 0)) || chown 65534:65534 "$dir"; } || return 1
    as_postgres "$initdb" --pgdata="$dir/data" --username=fineline --auth=trust --encoding=UTF8 \
        --locale-provider=icu --icu-locale=en-US --locale=C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 || {
        cat "$dir/initdb.log" >&2
        return 1
    }
    # Nothing here outlives the machine, so nothing is written through to the disk.
    as_postgres "$pg_ctl" --pgdata="$dir/data" --log="$dir/postgres.log" --silent --wait start \
        --options="-c listen_addresses='' -c unix_socket_directories='$dir' -c max_connections=300 -c fsync=off $*" || {
        cat "$dir/postgres.log" >&2
        return 1
    }
    postgres_dir=$dir
    export FINELINE_TEST_POSTGRES="postgres://fineline@localhost/{database}?host=$dir"
}

stop_postgres() {
    if [[ -n ${postgres_dir:-} ]]; then
        as_postgres "$pg_ctl" --pgdata="$postgres_dir/data" --silent --mode=immediate stop
        rm -rf "$postgres_dir"
        postgres_dir=
    fi
    unset FINELINE_TEST_POSTGRES
}
