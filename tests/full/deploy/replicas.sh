# What compose.yaml starts, as processes of this machine: two replicas behind nginx with the same files, and a worker. One
# SQLite file and one folder stand in for PostgreSQL and the bucket.
# shellcheck shell=bash

echo "== two replicas behind the balancer"
mkdir "$work/deploy"
cp "$deploy/secrets.sh" "$work/deploy/"
"$work/deploy/secrets.sh"
secrets=$work/deploy/secrets
before=$(cat "$work/deploy/.env" "$secrets"/* | sha256sum)
"$work/deploy/secrets.sh"
check "secrets are made once" test "$before" = "$(cat "$work/deploy/.env" "$secrets"/* | sha256sum)"

mkdir "$work/shared"
export FINELINE_DATABASE=sqlite://$work/shared/fineline.db FINELINE_STORE=file://$work/shared/store
export FINELINE_ADMIN_TOKEN_FILE=$secrets/admin.token FINELINE_EVALUATOR=off FINELINE_TRUSTED_PROXY=127.0.0.1

setup() {
    "$bin/fineline-registry" token create --name worker --scope evaluate --secret-file "$secrets/worker.token" --data "$work/setup"
    "$bin/fineline-registry" token create --name prometheus --scope read --secret-file "$secrets/metrics.token" --data "$work/setup"
}
check "the tokens are made sure of, twice" test "$(setup)" = "$(setup)"

urls=()
for n in 1 2; do
    "$bin/fineline-registry" serve --listen 127.0.0.1:0 --data "$work/replica-$n" >"$work/replica-$n.out" 2>"$work/replica-$n.err" &
    pids+=($!)
    url=
    for _ in $(seq 300); do
        url=$(grep -oE 'http://[0-9.:]+' "$work/replica-$n.out" | head -1) || true
        [[ -z $url ]] || break
        sleep 0.1
    done
    urls+=("$url")
done
port=$((20000 + RANDOM % 10000))
sed -e "s/registry-1:8080/${urls[0]#http://}/; s/registry-2:8080/${urls[1]#http://}/; s/listen 8080/listen 127.0.0.1:$port/" \
    "$deploy/nginx.conf" >"$work/site.conf"
nginx -p "$work" -c "$work/nginx.conf" -g 'daemon off;' 2>"$work/nginx.err" &
pids+=($!)

export FINELINE_URL=http://127.0.0.1:$port FINELINE_CONFIG=$work/client.toml FINELINE_TOKEN
FINELINE_TOKEN=$(cat "$secrets/admin.token")
for _ in $(seq 100); do curl -fsS "$FINELINE_URL/healthz" 2>/dev/null && break || sleep 0.1; done
PYTHONDONTWRITEBYTECODE=1 python3 - "$work" <<'EOF'
import pathlib, sys
sys.path.insert(0, "tests/fixtures/first-schema")
import make
work = pathlib.Path(sys.argv[1])
for step in range(1, 7):
    make.write_checkpoint(work / f"step-{step}", step)
make.write_suite(work / "suite")
EOF
fineline run create lab/tiny >/dev/null
fineline suite apply "$work/suite/suite.yaml" --run 'lab/*' >/dev/null
push_all() { for step in "$@"; do fineline push lab/tiny "$step" "$work/step-$step" >/dev/null || return 1; done; }
evaluate() { FINELINE_TOKEN=$(cat "$secrets/worker.token") "$bin/fineline-evaluator" --once >"$work/worker.log" 2>&1; }
check "steps are pushed" push_all 1 2 3
check "they are evaluated by a worker with its own token" evaluate
check "nothing waits" fineline wait lab/tiny --timeout 120

of_replica() { curl -fsS -H "Authorization: Bearer $(cat "$secrets/metrics.token")" "$1/metrics"; }
served() { of_replica "$1" | awk '/^fineline_http_requests_total\{route="\/api/ {n += $NF} END {exit !(n > 0)}'; }
for n in 0 1; do check "replica $((n + 1)) served some of it, as its metrics say" served "${urls[n]}"; done
metrics_status=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $FINELINE_TOKEN" "$FINELINE_URL/metrics")
check "the balancer shows no metrics" test "$metrics_status" = 404
check "each is ready" "$bin/fineline-registry" health --ready --listen "${urls[0]#http://}"

echo "== a worker that stays"
metrics=127.0.0.1:$((30000 + RANDOM % 2000))
FINELINE_TOKEN=$(cat "$secrets/worker.token") FINELINE_METRICS=$metrics FINELINE_DEVICE=cpu \
    "$bin/fineline-evaluator" --scratch "$work" >"$work/worker-2.log" 2>&1 &
worker=$!
pids+=("$worker")
for _ in $(seq 100); do [[ $(curl -fsS "http://$metrics/healthz" 2>/dev/null) != ok ]] || break; sleep 0.1; done
told=$(curl -fsS "http://$metrics/metrics" | grep -cE '^fineline_worker_(tokens_total|at_work|seconds_total\{activity="waiting"\}) ') || true
check "it tells its metrics" test "$told" = 3
kill "$worker"
ended=0
wait "$worker" || ended=$?
check "told to end, it ends well" test "$ended" = 0

kill -9 "${pids[0]}"
check "with one replica killed steps are pushed" push_all 4 5 6
check "and evaluated" evaluate
check "and pulled" fineline pull lab/tiny@6 "$work/pulled"
check "byte for byte" diff -r "$work/step-6" "$work/pulled"
n_scores=$(fineline scores lab/tiny --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')
check "every step has its scores ($n_scores of 18)" test "$n_scores" = 18
