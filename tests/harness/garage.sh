# A Garage of one node on free ports with a folder of its own in $work, and what lies in its bucket. Sourced, never run.
# shellcheck shell=bash

bucket=ckpt
garage=${GARAGE:-$(PATH=$PATH:$HOME/.cargo/bin command -v garage || true)}
no_garage='there is no garage: set GARAGE, or `cargo install garage --version 2.5.0 --locked --no-default-features --features bundled-libs,sqlite`'
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start_garage() {
    local secret s3_port rpc_port
    secret=$(openssl rand -hex 32)
    s3_port=$(free_port) rpc_port=$(free_port)
    AWS_ACCESS_KEY_ID=GK$(openssl rand -hex 12)
    AWS_SECRET_ACCESS_KEY=$(openssl rand -hex 32)
    AWS_REGION=garage
    AWS_ENDPOINT_URL=http://127.0.0.1:$s3_port
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION AWS_ENDPOINT_URL
    mkdir "$work/garage"
    cat >"$work/garage.toml" <<TOML
metadata_dir = "$work/garage/meta"
data_dir = "$work/garage/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc_port"
rpc_secret = "$secret"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$s3_port"
TOML
    GARAGE_DEFAULT_ACCESS_KEY=$AWS_ACCESS_KEY_ID GARAGE_DEFAULT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY GARAGE_DEFAULT_BUCKET=$bucket \
        "$garage" -c "$work/garage.toml" server --single-node --default-bucket >"$work/garage.log" 2>&1 &
    garage_pid=$!
    for _ in $(seq 600); do
        "$garage" -c "$work/garage.toml" bucket info "$bucket" >/dev/null 2>&1 && return
        sleep 0.05
    done
    cat "$work/garage.log" >&2
    return 1
}

# in_bucket PREFIX: how many objects lie below it, and their bytes.
in_bucket() {
    curl -sS --fail-with-body --aws-sigv4 "aws:amz:$AWS_REGION:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
        -H "x-amz-content-sha256: $(sha256sum </dev/null | cut -d' ' -f1)" "$AWS_ENDPOINT_URL/$bucket?list-type=2&prefix=${1//\//%2F}" | python3 -c 'import re, sys
listed = sys.stdin.read()
assert "<IsTruncated>false<" in listed, listed
sizes = [int(n) for n in re.findall(r"<Size>(\d+)</Size>", listed)]
print(len(sizes), sum(sizes))'
}
