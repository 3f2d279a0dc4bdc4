"""Debian's nginx as a proxy in front of a gateway, with its defaults.

nginx then speaks HTTP/1.0 to the gateway, with `Connection: close`, and buffers requests and answers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom

import pytest

from dev.stack import ports
from dev.stack.checkout import CHECKOUT
from tests.killable import await_listener

PROGRAMS = (Path("/usr/sbin/nginx"), CHECKOUT / "var" / "nginx" / "usr" / "sbin" / "nginx")

# Paths, because the defaults need root; no limit of the body, because the default is 1 MiB.
CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{gateway_port};
            {directives}
        }}
    }}
}}
"""


@asynccontextmanager
async def in_front_of(
    gateway_port: int, *, directory: Path, directives: str = ""
) -> AsyncIterator[str]:
    """Run nginx in front of a gateway; yield the URL of nginx.

    Args:
        gateway_port: the port of the gateway.
        directory: for the files of nginx.
        directives: differences from the defaults of `location`.
    """
    program = next((path for path in PROGRAMS if path.exists()), None)
    if program is None:
        pytest.fail("there is no nginx; `make nginx` unpacks one")
    chosen = ports.choose(
        ["nginx"], preferred={}, is_free=ports.is_free, random_below=SystemRandom().randrange
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            directory=directory,
            port=chosen["nginx"],
            gateway_port=gateway_port,
            directives=directives,
        )
    )
    log_file = directory / "nginx.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program, "-p", directory, "-c", configuration), stderr=log
        )
    try:
        await asyncio.to_thread(await_listener, "127.0.0.1", chosen["nginx"])
        assert process.returncode is None, log_file.read_text()
        yield f"http://127.0.0.1:{chosen['nginx']}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
