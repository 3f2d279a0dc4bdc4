"""Seeds the database of the running stack with a history of many jobs.

Run it as `make seed ROWS=1000000`. The tenants are named `seed-0001` and so on; `--remove`
deletes them with everything that they own. With `A=--passages=1000000`, it adds a library of
passages and their vectors for search instead; its tenants are named `seed-library` and so on.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from dev.seed.extent import Extent
from dev.seed.library import LibraryExtent, seed_library
from dev.seed.load import SeedRefused, remove, seed
from dev.stack import programs
from dev.stack.checkout import CHECKOUT
from dev.stack.errors import StackError
from schemas.settings import EmbeddingSettings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.seed", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="number of jobs (10000)")
    parser.add_argument("--tenants", type=int, default=20, help="number of tenants (20)")
    parser.add_argument("--days", type=int, default=6, help="age of the oldest job (6)")
    parser.add_argument("--seed", type=int, default=1, help="selects the ids and the facts (1)")
    parser.add_argument("--passages", type=int, help="seed a library of so many passages instead")
    parser.add_argument(
        "--force", action="store_true", help="seed beside the uploads of other tenants"
    )
    parser.add_argument("--remove", action="store_true", help="delete the seeded tenants instead")
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=CHECKOUT / "var",
        help="of the running stack (var/)",
    )
    arguments = parser.parse_args()
    extent = Extent(
        rows=arguments.rows,
        tenants=arguments.tenants,
        span=timedelta(days=arguments.days),
        seed=arguments.seed,
    )
    began = time.monotonic()
    try:
        settings = programs.settings_of(arguments.state_dir.resolve())
        url = settings["DATABASE_URL"]
        if arguments.remove:
            remove(url, report=print)
        elif arguments.passages is not None:
            seed_library(
                url,
                LibraryExtent(
                    passages=arguments.passages,
                    settings=_embedding(settings),
                    seed=arguments.seed,
                ),
                report=print,
            )
        else:
            seed(url, extent, force=arguments.force, report=print)
    except (StackError, SeedRefused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"done after {time.monotonic() - began:.0f} s")
    return 0


def _embedding(settings: Mapping[str, str]) -> EmbeddingSettings:
    return EmbeddingSettings.model_validate(
        {name.lower(): value for name, value in settings.items()}
    )


if __name__ == "__main__":
    sys.exit(main())
