# A linter a file.
# shellcheck shell=bash

echo "== linters"
for file in Containerfile Containerfile.cuda; do
    check "$file: hadolint" hadolint --failure-threshold style "$deploy/$file"
done
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

# A warning is a failure: verify itself ends well with some.
silent() {
    local said
    said=$("$@" 2>&1) && [[ -z $said ]] || {
        echo "$said"
        return 1
    }
}
exposed() { systemd-analyze security --offline=true --threshold=20 --no-pager "$1" | tail -1; }
for name in fineline-registry.service fineline-evaluator.service; do
    # systemd wants the program to be there.
    sed "s|^ExecStart=/usr/local/bin/|ExecStart=$bin/|" "$deploy/$name" >"$work/$name"
    check "$name: systemd-analyze verify" silent systemd-analyze verify --man=no "$work/$name"
    check "$name: systemd-analyze security, exposure at most 2.0 of 10" exposed "$work/$name"
done
# What drains must not be killed before it has: the program's own default, and ten seconds to give back what is left.
drains=$("$bin/fineline-evaluator" --help | grep -A9 -e --drain-timeout | grep -oE 'default: [0-9]+' | head -1 | tr -dc 0-9)
stops=$(grep -oP '^TimeoutStopSec=\K[0-9]+' "$deploy/fineline-evaluator.service")
grace=$(grep -A30 '^x-worker' "$deploy/compose.yaml" | grep -oP 'stop_grace_period: \K[0-9]+')
check "a worker has $drains s to drain, and is killed after $stops s (systemd) or $grace s (Compose)" \
    test "$((drains + 10))" -le "$stops" -a "$((drains + 10))" -le "$grace"
