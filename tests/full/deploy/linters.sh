# A linter a file.
# shellcheck shell=bash

echo "== linters"
check "Containerfile: hadolint" hadolint --failure-threshold style "$deploy/Containerfile"
check "compose.yaml: the Compose specification's schema" \
    check-jsonschema --builtin-schema vendor.compose-spec "$deploy/compose.yaml"

# nginx asks where the replicas are when it starts.
sed -e 's/registry-[12]:8080/127.0.0.1:8080/' "$deploy/nginx.conf" >"$work/site.conf"
cat >"$work/nginx.conf" <<EOF
pid $work/nginx.pid;
error_log stderr;
events {}
http { include $work/site.conf; }
EOF
check "nginx.conf: nginx -t" nginx -t -q -p "$work" -c "$work/nginx.conf"

# systemd wants the program to be there.
unit=$work/fineline-registry.service
sed "s|^ExecStart=/usr/local/bin/|ExecStart=$bin/|" "$deploy/fineline-registry.service" >"$unit"
# A warning is a failure: verify itself ends well with some.
silent() {
    local said
    said=$("$@" 2>&1) && [[ -z $said ]] || {
        echo "$said"
        return 1
    }
}
check "fineline-registry.service: systemd-analyze verify" silent systemd-analyze verify --man=no "$unit"
exposed() { systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" | tail -1; }
check "fineline-registry.service: systemd-analyze security, exposure at most 2.0 of 10" exposed
