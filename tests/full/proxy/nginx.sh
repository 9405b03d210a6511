# A certificate, and nginx with the documented configuration on free ports. It connects from 127.0.0.2, so that a request
# that comes straight from 127.0.0.1 is told from one that came through it.
# shellcheck shell=bash

echo "== nginx by docs/OPERATIONS.md"
read -r port tls_port plain_port driver_port < <(python3 -c '
import socket
free = [socket.socket() for _ in range(4)]
for s in free: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in free))')
(
    cd "$work"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=test authority" \
        -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" -keyout own.key -out own.csr
    printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >own.ext
    openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile own.ext -out own.pem
) 2>"$work/openssl.log" || { cat "$work/openssl.log" >&2; exit 1; }

# documented FROM TO: the documented text FROM is there, and is TO from here on.
documented() {
    grep -qF "$1" "$work/site.conf" || { echo "docs/OPERATIONS.md has no \`$1\`" >&2; exit 1; }
    sed -i "s|$1|$2|" "$work/site.conf"
}
awk '/^```nginx$/ {inside = 1; next} /^```$/ {inside = 0} inside' docs/OPERATIONS.md >"$work/site.conf"
documented "server 127.0.0.1:8080;" "server 127.0.0.1:$port;"
documented "listen 80;" "listen 127.0.0.1:$plain_port;"
documented "listen 443 ssl;" "listen 127.0.0.1:$tls_port ssl;"
documented "server_name registry.lab;" "server_name localhost;"
documented "/etc/ssl/certs/registry.lab.pem" "$work/own.pem"
documented "/etc/ssl/private/registry.lab.key" "$work/own.key"
cat >"$work/nginx.conf" <<CONF
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log info;
events {}
http {
    access_log $work/access.log;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    proxy_bind 127.0.0.2;
    include $work/site.conf;
}
CONF
check "nginx takes the documented configuration" nginx -t -q -c "$work/nginx.conf" -e "$work/nginx.log"
nginx -c "$work/nginx.conf" -e "$work/nginx.log" &
nginx=$!
tls=https://localhost:$tls_port
for _ in $(seq 100); do
    curl -s -o /dev/null "http://localhost:$plain_port/" && break
    sleep 0.1
done
check "plain HTTP leads to HTTPS" test "$(curl -s -o /dev/null -w '%{redirect_url}' "http://localhost:$plain_port/runs/a/b?c")" \
    = "https://localhost/runs/a/b?c"
