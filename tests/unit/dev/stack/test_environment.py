from dev.stack import environment


def test_given_parts_are_read_from_the_environment() -> None:
    given = environment.given_in(
        {"DATABASE_URL": "postgresql://there", "S3_ENDPOINT_URL": "", "EDITOR": "vi"}
    )

    assert given == {"DATABASE_URL": "postgresql://there"}


def test_celerys_variable_names_the_broker() -> None:
    assert environment.given_in({"CELERY_BROKER_URL": "amqp://there"}) == {
        "RABBITMQ_URL": "amqp://there"
    }


def test_the_projects_variable_precedes_celerys() -> None:
    given = environment.given_in({"CELERY_BROKER_URL": "amqp://a", "RABBITMQ_URL": "amqp://b"})

    assert given == {"RABBITMQ_URL": "amqp://b"}
