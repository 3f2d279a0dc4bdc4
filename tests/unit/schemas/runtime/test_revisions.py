"""The names of the migrations' files agree with Alembic."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from schemas.runtime import revisions


def test_the_files_name_the_revisions_in_their_order() -> None:
    config = Config()
    config.set_main_option("script_location", "schemas:migrations")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert revisions.known() == tuple(script.revision for script in scripts)[::-1]
