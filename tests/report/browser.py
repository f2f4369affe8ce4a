"""Debian's Chromium, driven by the DevTools protocol: what a user does, and what the page complains about."""

import json
import shutil
import subprocess
import time

from websockets.sync.client import connect

SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "ArrowRight": (39, "")}


class Browser:
    """One page. `complaints`: what it logged as an error or threw; `requested`: the addresses that it asked for."""

    def __init__(self, profile):
        browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        assert browser, "no chromium on the PATH: run `make setup`, which installs it"
        command = [browser, *SWITCHES, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port.is_file() and port.read_text().count("\n")):
            assert time.monotonic() < deadline and self.process.poll() is None, "chromium did not start"
            time.sleep(0.05)
        number, path = port.read_text().splitlines()
        self.socket = connect(f"ws://127.0.0.1:{number}{path}", max_size=None, proxy=None)
        self.number, self.session, self.complaints, self.requested = 0, None, [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)

    def send(self, method, **params):
        """A command's result; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            found = self._event(60)
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def open(self, file):
        """Load a file to its end, as if nothing had been before."""
        self.address, self.complaints, self.requested = file.as_uri(), [], []
        self.send("Emulation.clearDeviceMetricsOverride")
        self.send("Emulation.setEmulatedMedia", features=[])
        self.loaded = False
        self.send("Page.navigate", url=self.address)
        while not self.loaded:
            self._event(60)

    def run(self, code):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def key(self, name):
        code, text = KEYS[name]
        about = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def emulate(self, width, scheme):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def _event(self, timeout):
        found = json.loads(self.socket.recv(timeout))
        about, params = found.get("method"), found.get("params", {})
        if about == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif about == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif about == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif about == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requested.append(params["request"]["url"])
        elif about == "Page.loadEventFired":
            self.loaded = True
        return found
