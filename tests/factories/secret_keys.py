"""Keys of the secrets in a test's database."""

import base64
from typing import Final

from schemas.key_ring import KeyRing

KEY: Final = base64.b64encode(bytes(range(32))).decode()
"""`SECRET_KEYS` of the services that a test starts."""

OTHER_KEY: Final = base64.b64encode(bytes(range(32, 64))).decode()

KEYS: Final = KeyRing.parse(KEY)
