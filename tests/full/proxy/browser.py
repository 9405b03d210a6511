"""browser.py URL TOKEN_FILE PORT: a real browser pastes the token, sees the run, logs out, and is used by another site's page."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request

url, token = sys.argv[1], open(sys.argv[2]).read().split("=")[1]
port, profile = sys.argv[3], tempfile.TemporaryDirectory()
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
driver = subprocess.Popen(["chromedriver", f"--port={port}"], **quiet)
options = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
options = [f"--{option}" for option in options.split()] + [f"--user-data-dir={profile.name}"]


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}, method=method)
    return json.load(urllib.request.urlopen(request))["value"]


def element(selector):
    found = call("POST", f"{session}/element", {"using": "css selector", "value": selector})
    return f"{session}/element/{next(iter(found.values()))}"


def go(to):
    call("POST", f"{session}/url", {"url": to})


def shows(what):
    # A click may return before the next page is there.
    for _ in range(100):
        page = call("GET", f"{session}/source")
        if what in page:
            return
        time.sleep(0.1)
    sys.exit(f"the browser is at {call('GET', f'{session}/url')} and does not see `{what}`:\n{page}")


session = None
try:
    for _ in range(100):
        try:
            call("GET", "/status")
            break
        except OSError:
            time.sleep(0.1)
    wanted = {"acceptInsecureCerts": True, "goog:chromeOptions": {"args": options}, "goog:loggingPrefs": {"browser": "ALL"}}
    session = "/session/" + call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
    go(f"{url}/runs/lab/a")
    call("POST", element("#token") + "/value", {"text": token})
    call("POST", element("main button") + "/click", {})
    shows("logged in as <b>first administrator</b>")
    assert call("GET", f"{session}/url") == f"{url}/runs/lab/a", "it is led to the page that it asked for"
    (cookie,) = call("GET", f"{session}/cookie")
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == ("__Host-fineline", True, True, "Lax")
    assert call("POST", f"{session}/execute/sync", {"script": "return document.cookie", "args": []}) == ""
    for path, does in [("/logout", "logs it out"), ("/login", "logs it in")]:
        go(f"data:text/html,<form method=post action='{url}{path}'><button>{does}</button></form>")
        call("POST", element("button") + "/click", {})
        shows("this form was sent by a page of another site")
    go(f"{url}/")
    call("POST", element("header button") + "/click", {})
    shows("An administrator makes one")
    call("POST", f"{session}/back", {})
    shows("An administrator makes one")
    log = [entry["message"] for entry in call("POST", f"{session}/se/log", {"type": "browser"})]
    assert not any("Content Security Policy" in line for line in log), log
finally:
    if session:
        call("DELETE", session)
    driver.terminate()
    driver.wait()
