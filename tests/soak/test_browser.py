"""A page of another origin uploads a file with the script of the README, in Chromium."""

import asyncio
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from dev.stack.checkout import CHECKOUT
from tests.integration.gateway.clients.conftest import (  # noqa: F401  # fixtures
    Gateway,
    anyio_backend,
    gateway,
)

pytestmark = pytest.mark.anyio

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SIZE = 20 * 1024 * 1024

# The job has no worker: the page cancels it, which ends the stream of events.
PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
const waybill = %(waybill)s, key = %(key)s;
const file = new File([new Uint8Array(%(size)d)], "größe.log");
const statuses = [];
const report = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
const show = async (job) => {
  statuses.push(job.status);
  const authorization = { Authorization: `Bearer ${key}` };
  if (job.status === "queued") {
    await fetch(`${waybill}/api/v1/uploads/${job.upload_id}`, { method: "DELETE", headers: authorization });
  } else if (job.status === "cancelled") {
    const answer = await fetch(`${waybill}/api/v1/nowhere`, { headers: authorization });
    const problem = await answer.json();
    const exposed = answer.headers.get("X-Request-ID");
    await report({ statuses, code: problem.code, sameId: problem.request_id === exposed });
  }
};
try {
%(script)s
} catch (error) {
  await report({ error: String(error), problem: error });
}
</script>"""


class PageServer(ThreadingHTTPServer):
    """Serves a page at every path, and keeps what the page posts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.page = b""
        self.results = Queue[dict[str, Any]]()

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.page)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.results.put(json.loads(body))

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with PageServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def gateway_settings(pages: PageServer) -> Mapping[str, str]:
    return {"CORS_ORIGINS": pages.origin}


@asynccontextmanager
async def browser_at(url: str, *, profile: Path) -> AsyncIterator[None]:
    """Open a page in Chromium; the browser ends with the block."""
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
        url,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def script_of_the_readme() -> str:
    scripts = re.findall(r"```js\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    assert len(scripts) == 1
    return str(scripts[0])


async def test_a_page_uploads_in_chunks_and_follows_the_job(
    gateway: Gateway,  # noqa: F811  # the imported fixture
    pages: PageServer,
    tmp_path: Path,
) -> None:
    values = {
        "waybill": json.dumps(gateway.url),
        "key": json.dumps(gateway.key),
        "size": SIZE,
        "script": script_of_the_readme(),
    }
    pages.page = (PAGE % values).encode()

    async with browser_at(pages.origin, profile=tmp_path):
        try:
            result = await asyncio.to_thread(pages.results.get, timeout=60)
        except Empty:
            pytest.fail(gateway.process.log_file.read_text()[-5000:])

    assert result == {"statuses": ["queued", "cancelled"], "code": "not_found", "sameId": True}
    # A successful chunk is logged at debug, like the preflight before it.
    lines = gateway.process.logged("http.request")
    puts = [line["status"] for line in lines if line["method"] == "PUT"]
    assert puts == [200] * 3
    assert gateway.key not in gateway.process.log_file.read_text()
