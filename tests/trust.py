"""The public certificate authorities, read once: to read them takes 35 ms of CPU for each client."""

from typing import Final

import httpx

PUBLIC: Final = httpx.create_ssl_context()
