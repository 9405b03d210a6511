# A login as a browser does it, started as the document says.
# shellcheck shell=bash

echo "== logging in over TLS"
start_server "$work/data" --evaluator off --public-url "$tls" --trusted-proxy 127.0.0.2
export SSL_CERT_FILE=$work/ca.pem
jar=$work/jar

# browse PATH [CURL-OPTION...]: a page over TLS with the cookie jar: its body on stdout, its headers in $work/head.
browse() {
    local path=$1
    shift
    curl -sS --cacert "$work/ca.pem" -b "$jar" -c "$jar" -D "$work/head" "$@" "$tls$path"
}
csrf() { grep -oE 'name="csrf" value="[0-9a-f]{64}"' | head -1 | grep -oE '[0-9a-f]{64}'; }
headers_have() { grep -qiE "$1" "$work/head"; }
redirects_to() { test "$(curl -sS --cacert "$work/ca.pem" -b "$jar" -o /dev/null -w '%{redirect_url}' "$tls$1")" = "$2"; }

check "a page leads to the login, over HTTPS" redirects_to /runs/lab/a "$tls/login?next=%2Fruns%2Flab%2Fa"
form=$(browse /login | csrf)
printf 'token=%s' "$FINELINE_TOKEN" >"$work/token"
browse /login -H "Origin: $tls" --data-urlencode "csrf=$form" --data-urlencode "next=/" --data "@$work/token" >"$work/page"
check "a good token is let in" headers_have '^HTTP/1.1 303'
check "and led on by a path of our own" headers_have '^location: /.?$'
check "the cookie is Secure, HttpOnly and this host's own" \
    headers_have '^set-cookie: __Host-fineline=[A-Za-z0-9]{43}; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age='
check "the browser is told to stay with TLS" headers_have '^strict-transport-security: max-age='
browse / >"$work/page"
check "the runs page says who is logged in" grep -q 'logged in as <b>first administrator</b>' "$work/page"
check "and its absolute URL is the public one" grep -qF -- "--url $tls" "$work/page"
browse /logout -H "Origin: https://evil.example" --data-urlencode "csrf=$(csrf <"$work/page")" >/dev/null
check "another site's form is refused" headers_have '^HTTP/1.1 403'
browse /logout -H "Origin: $tls" --data-urlencode "csrf=$(csrf <"$work/page")" >/dev/null
check "our own logs out" headers_have '^HTTP/1.1 303'
check "and the page leads to the login again" redirects_to / "$tls/login?next=%2F"
