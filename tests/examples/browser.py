"""Headless Chromium by the WebDriver protocol, with the standard library alone."""

import contextlib
import functools
import http.server
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request

# Local ports, whatever proxy is set.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One window of a browser that chromedriver has started."""

    def __init__(self, url, session):
        self._root = f"{url}/session/{session}"

    def __call__(self, path, **arguments):
        """Sends a command, with arguments by POST and without by GET; returns its value."""
        return _send(f"{self._root}/{path}", arguments or None)

    def script(self, code, *arguments):
        """Runs the body of a JavaScript function and returns what it returns."""
        return self("execute/sync", script=code, args=list(arguments))

    def devtools(self, command, **arguments):
        return self("goog/cdp/execute", cmd=command, params=arguments)

    def open(self, address, width=1280, height=1000, scheme="light"):
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])
        self("url", url=address)

    def upload(self, selector, path):
        """Chooses a file in a field, as a user does."""
        element = self("element", using="css selector", value=selector)
        (identity,) = element.values()
        self(f"element/{identity}/value", text=str(path))

    def wait(self, code, seconds=30):
        """Waits until the body of a JavaScript function returns what is true, and returns that."""
        poll = (
            "const [body, limit, done] = arguments; const until = performance.now() + limit;"
            "const look = () => { const found = new Function(body)();"
            " if (found || performance.now() > until) done(found); else setTimeout(look, 20); };"
            "look();"
        )
        found = self("execute/async", script=poll, args=[code, 1000 * seconds])
        assert found, f"{code}: not within {seconds} s; the page says: " + self.script(
            "return document.body.innerText"
        )
        return found

    def console(self):
        """What was written to the console since the last call: warnings and errors."""
        return [entry["message"] for entry in self("se/log", type="browser")]


@contextlib.contextmanager
def browser(chromedriver, chromium, profile):
    """A headless `Browser`, which ends with the context."""
    driver = subprocess.Popen(
        [chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        for line in driver.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                break
        url = f"http://127.0.0.1:{found.group(1)}"
        threading.Thread(target=driver.stdout.read, daemon=True).start()
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
        ]  # fmt: skip
        wanted = {
            "goog:chromeOptions": {"binary": chromium, "args": flags},
            "goog:loggingPrefs": {"browser": "WARNING"},
            "timeouts": {"script": 120_000},
        }
        made = _send(f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
        window = Browser(url, made["sessionId"])
        try:
            yield window
        finally:
            _send(window._root, method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=30)


@contextlib.contextmanager
def served(folder):
    """The address at which a folder is served, by Python's own server."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _send(url, arguments=None, method=None):
    method = method or ("GET" if arguments is None else "POST")
    data = None if arguments is None else json.dumps(arguments).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _OPENER.open(request, timeout=150) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"].splitlines()[0]) from error
