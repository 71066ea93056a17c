"""A real HTTP server around an application, for the length of a `with` block."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from races import wait_until


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve `app` by uvicorn on a free port; its base URL. The lifespan ends with the block."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the server never started")
            assert server.started, "the application did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive(), "the server never ended"
