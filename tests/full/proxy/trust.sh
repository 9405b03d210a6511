# Without a public URL: the named proxy's headers alone say how the user came.
# shellcheck shell=bash

echo "== what is believed"
start_server "$work/data" --evaluator off --trusted-proxy 127.0.0.2
forged=(-H "X-Forwarded-Proto: https" -H "X-Forwarded-Host: evil.example")

# cookie_of CURL-ARGUMENT...: the cookie that the login page gives.
cookie_of() { curl -sS --cacert "$work/ca.pem" -o /dev/null -D - "$@" | grep -i '^set-cookie'; }
is_plain() { grep -qE 'set-cookie: fineline=' <<<"$1" && ! grep -q Secure <<<"$1"; }

check "through the proxy the cookie is Secure" grep -qE 'set-cookie: __Host-fineline=.*; Secure' <<<"$(cookie_of "$tls/login")"
check "a straight request that claims TLS is not believed" is_plain "$(cookie_of "${forged[@]}" "$FINELINE_URL/login")"
check "nor one by RFC 7239" is_plain "$(cookie_of -H 'Forwarded: proto=https;host=evil.example' "$FINELINE_URL/login")"
form=$(rm -f "$jar"; browse /login | csrf)
browse /login -H "Origin: $tls" --data-urlencode "csrf=$form" --data "@$work/token" >/dev/null
browse /runs/lab/a "${forged[@]}" -H "Forwarded: host=evil.example" >"$work/page"
check "what a client claims through the proxy is not believed" grep -qF -- "--url $tls<" "$work/page"
if command -v chromedriver >/dev/null; then
    check "a real browser logs in, sees the run, logs out, and is no tool of another site's page" \
        python3 tests/full/proxy/browser.py "$tls" "$work/token" "$driver_port"
else
    echo "skipped: full/proxy: there is no chromedriver"
fi
stop_server
