"""A real Prometheus on a free loopback port, in a folder of its own, stopped by its process id."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pycheckout._embedded import _free_port
from races import wait_until


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on this machine (apt-get install --no-install-recommends prometheus)")
    return path


class Prometheus:
    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/", trust_env=False, timeout=10)

    def _get(self, path: str, **params: str) -> Any:
        answer = self._client.get(path, params=params).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def ready(self) -> bool:
        try:
            return self._client.get("-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples that an expression has at this moment."""
        return list(self._get("api/v1/query", query=expr)["result"])

    def names(self) -> set[str]:
        """Of all metrics that it has ever scraped."""
        return set(self._get("api/v1/label/__name__/values"))

    def firing(self) -> set[str]:
        alerts = self._get("api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def wait(self, true: Callable[[], Any], timeout: float = 40.0) -> Any:
        deadline = time.monotonic() + timeout
        while not (found := true()):
            assert time.monotonic() < deadline, f"it never became true; firing: {self.firing()}"
            time.sleep(0.1)
        return found


@contextmanager
def prometheus(targets: list[str], rules: Path) -> Iterator[Prometheus]:
    """It scrapes the targets twice a second, and evaluates the rules ten times."""
    path = program("prometheus")
    folder = Path(tempfile.mkdtemp(prefix="pycheckout-prometheus-"))
    port = _free_port()
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "100ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "pycheckout", "static_configs": [{"targets": targets}]}],
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    options = {
        "config.file": folder / "config.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
        "query.lookback-delta": "3s",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [path, *(f"--{name}={value}" for name, value in options.items())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(port)
        wait_until(lambda: server.ready() or process.poll() is not None, "Prometheus did not start", 30)
        assert process.poll() is None, (folder / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)
