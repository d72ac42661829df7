"""Headless Firefox, driven through WebDriver BiDi, for pages that have to work there, too.

Playwright brings a Firefox of its own and cannot drive the one that is installed.
https://w3c.github.io/webdriver-bidi describes the commands and events.
"""

import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager

FIREFOX = shutil.which("firefox") or shutil.which("firefox-esr")


class Page:
    """A tab of Firefox. said: what was written to the console; asked: what was requested."""

    def __init__(self, socket):
        self.socket, self.number, self.said, self.asked = socket, 0, [], []
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method, **parameters):
        """Send a command, wait for its result, and note the events that arrive meanwhile."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") == "log.entryAdded":
                self.said.append(answer["params"]["text"])
            elif answer.get("method") == "network.beforeRequestSent":
                self.asked.append(answer["params"]["request"]["url"])
            elif answer.get("id") == self.number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def open(self, address, width, height):
        size = {"width": width, "height": height}
        self.call("browsingContext.setViewport", context=self.context, viewport=size)
        self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def evaluate(self, expression):
        """Return what a JavaScript expression is worth, which JSON has to be able to say."""
        found = self.call(
            "script.evaluate",
            expression=f"Promise.resolve(({expression})).then(JSON.stringify)",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def stroke(self, points, kind):
        """Draw a stroke through points (x, y) of the window. kind: "mouse" or "touch"."""
        moves = [
            {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 20} for x, y in points
        ]
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}}
        pointer["actions"] = [moves[0], down, *moves[1:], up]
        self.call("input.performActions", context=self.context, actions=[pointer])


@contextmanager
def firefox(profile):
    """Start Firefox with an empty folder as its profile; give a page."""
    from websocket import create_connection

    log = profile / "log.txt"
    command = [FIREFOX, "--headless", "--no-remote", "--remote-debugging-port=0"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--profile", str(profile), "about:blank"], stdout=file, stderr=file
        )
    try:
        found = None
        while not found:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
            found = re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text())
        socket = create_connection(f"{found[1]}/session", suppress_origin=True, timeout=120)
        yield Page(socket)
        socket.close()
    finally:
        process.terminate()
        process.wait(30)
