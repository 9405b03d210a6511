# A checkpoint through the proxy and back, by the real client over TLS: chunks are larger than what nginx takes by itself.
# shellcheck shell=bash

echo "== push and pull over TLS"
mkdir -p "$work/step"
python3 - "$work/step" <<'PY'
import json, pathlib, random, sys
folder, n = pathlib.Path(sys.argv[1]), 10 << 20
header = json.dumps({"w": {"dtype": "BF16", "shape": [n], "data_offsets": [0, 2 * n]}}).encode()
weights = len(header).to_bytes(8, "little") + header + random.Random(1).randbytes(2 * n)
(folder / "model.safetensors").write_bytes(weights)
(folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
PY
direct=$FINELINE_URL
export FINELINE_URL=$tls
trusting() { SSL_CERT_FILE=$work/ca.pem fineline "$@" >/dev/null; }
refute() { ! "$@"; }
check "the client takes no certificate that it does not know" \
    refused 'connect|certificate' env -u SSL_CERT_FILE "$bin/fineline" run create lab/a
check "it creates a run" trusting run create lab/a
check "it pushes 20 MiB" trusting push lab/a 1 "$work/step"
check "it pulls them" trusting pull lab/a@1 "$work/pulled"
check "byte-identical" diff -r "$work/step" "$work/pulled"
check "the proxy logged the requests" test -s "$work/access.log"
check "the proxy has an error log" test -f "$work/nginx.log"
check "nothing was kept on the proxy's disk" refute grep -q "buffered to a temporary file" "$work/nginx.log"
check "no token stands in the proxy's logs" refute grep -qF "$FINELINE_TOKEN" "$work/access.log" "$work/nginx.log"
export FINELINE_URL=$direct
stop_server
