from dev.stack import environment


def test_parts_the_caller_brings_along_are_taken_from_the_environment() -> None:
    given = environment.given_in(
        {"DATABASE_URL": "postgresql://there", "S3_ENDPOINT_URL": "", "EDITOR": "vi"}
    )

    assert given == {"DATABASE_URL": "postgresql://there"}


def test_celerys_name_for_the_broker_is_understood() -> None:
    assert environment.given_in({"CELERY_BROKER_URL": "amqp://there"}) == {
        "RABBITMQ_URL": "amqp://there"
    }


def test_the_projects_name_for_the_broker_comes_first() -> None:
    given = environment.given_in({"CELERY_BROKER_URL": "amqp://a", "RABBITMQ_URL": "amqp://b"})

    assert given == {"RABBITMQ_URL": "amqp://b"}
