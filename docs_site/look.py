"""Look at every page of the built site in Chromium, on a laptop and on a phone, in light and in dark.

    python -m docs_site.look build/site                      what is cut off, what must be scrolled sideways
    python -m docs_site.look build/site --shots DIR [PAGE…]   pictures of pages as well, to look at

A browser alone knows how wide a page comes out, so this is a step for people (CONTRIBUTING.md) and no test. It ends
with 1 if a page is wider than its window, or if something in it is cut off and cannot be scrolled to. What a block
scrolls by itself is only listed: on a phone tables and code do that, on a laptop nothing should.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WIDTHS = {"laptop": (1366, 768), "phone": (390, 844)}
SCHEMES = ("light", "dark")

# Boxes that stick out to the right of the window, or out of a box that hides what does not fit; and, apart from them,
# boxes that scroll sideways. Of boxes in each other, the outermost alone.
_LOOK = """
(async () => {
  await document.fonts.ready;
  const diagrams = () => [...document.querySelectorAll('.mermaid')];
  const undrawn = () => diagrams().filter(it => it.matches('pre')).length;
  for (let n = 0; n < 100 && undrawn(); n++)
    await new Promise(done => setTimeout(done, 50));
  const article = document.querySelector('article') || document.body;
  const named = it => `<${it.tagName.toLowerCase()} class="${it.className}"> ${it.textContent.trim().slice(0, 50)}`;
  const scrolls = it => ['auto', 'scroll'].includes(getComputedStyle(it).overflowX);
  const inside = (it, found) => found.some(other => other.contains(it));
  // Not innerWidth, which a phone widens to what it shows.
  const width = document.documentElement.clientWidth;
  const out = [], scrolled = [];
  for (const it of [...document.querySelectorAll('.md-header *, .md-tabs *, article, article *')]) {
    const box = it.getBoundingClientRect();
    if (!box.width || !box.height || getComputedStyle(it).visibility == 'hidden') continue;
    if (inside(it, scrolled) || inside(it, out)) continue;
    if (it.closest('.md-search, .headerlink, .md-code__nav, .md-header__topic, .md-tabs__list')) continue;
    if (scrolls(it) && it.scrollWidth > it.clientWidth + 1) scrolled.push(it);
    else if (box.right > width + 1) out.push(it);
    else if (getComputedStyle(it).overflowX == 'hidden' && it.scrollWidth > it.clientWidth + 1) out.push(it);
  }
  return JSON.stringify({
    title: document.title, wide: document.documentElement.scrollWidth - width, undrawn: undrawn(),
    out: out.map(named), scrolled: scrolled.map(named), height: document.documentElement.scrollHeight,
  });
})()
"""


class Browser:
    """Chromium over its debugging pipe: requests to descriptor 3, answers from 4, each ended by a null byte."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The shell gives the two pipes the numbers that Chromium wants.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, *options, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._bytes, self._last, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        [tab] = [it for it in self("Target.getTargets")["targetInfos"] if it["type"] == "page"]
        self._session = self("Target.attachToTarget", targetId=tab["targetId"], flatten=True)["sessionId"]
        self("Page.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._bytes:
            more = os.read(self._read, 1 << 20)
            if not more:
                raise RuntimeError("the browser has gone")
            self._bytes += more
        text, _, self._bytes = self._bytes.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        request: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                answer: dict[str, Any] = message["result"]
                return answer
            self._events.append(message)

    def open(self, url: str) -> None:
        self._events.clear()
        self("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._message())

    def evaluate(self, script: str) -> Any:
        answer = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def close(self) -> None:
        self("Browser.close")
        self.process.wait(timeout=20)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*", help="by default all but the sources: services/ or index.html")
    parser.add_argument("--shots", type=Path, help="a folder for pictures")
    parser.add_argument("--sources", action="store_true", help="pages of source files as well")
    asked = parser.parse_intermixed_args()

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        print("There is no Chromium here (on Debian: apt-get install chromium).", file=sys.stderr)
        return 2
    pages = asked.pages or sorted(
        str(it.parent.relative_to(asked.site)) + "/"
        for it in asked.site.rglob("index.html")
        if asked.sources or "source" not in it.relative_to(asked.site).parts
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(asked.site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}"
    bad = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        for device, (width, height) in WIDTHS.items():
            for scheme in SCHEMES:
                browser.open("about:blank")  # or the last page would keep its palette for the next
                browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
                for page in pages:
                    size = {"width": width, "deviceScaleFactor": 1, "mobile": device == "phone"}
                    browser("Emulation.setDeviceMetricsOverride", height=height, **size)
                    # the palette of the last page
                    browser("Storage.clearDataForOrigin", origin=origin, storageTypes="local_storage")
                    browser.open(f"{origin}/{page}")
                    seen = json.loads(browser.evaluate(_LOOK))
                    faults = [f"wider than its window by {seen['wide']}"] * (seen["wide"] > 0)
                    faults += [f"cut off: {it}" for it in seen["out"]]
                    faults += [f"{seen['undrawn']} diagrams were not drawn"] * bool(seen["undrawn"])
                    bad += len(faults)
                    notes = [f"scrolls: {it}" for it in seen["scrolled"]] if device == "laptop" else []
                    if scheme == "light" or faults:
                        for line in faults + notes:
                            print(f"{page} {device} {scheme}: {' '.join(line.split())}")
                    if asked.shots:
                        asked.shots.mkdir(parents=True, exist_ok=True)
                        browser("Emulation.setDeviceMetricsOverride", height=min(seen["height"], 6000), **size)
                        picture = base64.b64decode(browser("Page.captureScreenshot")["data"])
                        name = page.strip("/.").replace("/", "-") or "index"
                        (asked.shots / f"{name}-{device}-{scheme}.png").write_bytes(picture)
        browser.close()
    server.shutdown()
    print(f"{len(pages)} pages, {bad} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
