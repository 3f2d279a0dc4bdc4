from dev.stack import databases


def test_the_url_of_another_database_differs_in_its_path_only() -> None:
    url = databases.address_of("postgresql+psycopg://me:secret@127.0.0.1:5432/a?x=1", name="b-1")

    assert url == "postgresql+psycopg://me:secret@127.0.0.1:5432/b-1?x=1"
