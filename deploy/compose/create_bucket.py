"""Creates the bucket of the processes, from their settings; safe to run again."""  # noqa: INP001  # mounted as a single file

import sys

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

from schemas.runtime.settings_loader import ServiceSettings
from schemas.settings import ObjectStoreSettings


class Settings(ObjectStoreSettings, ServiceSettings):
    """Settings of the bucket."""


def create_bucket(settings: ObjectStoreSettings) -> None:
    client = Session(
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        region_name=settings.s3_region,
    ).client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        config=Config(
            s3={"addressing_style": "path"},
            # A store that has just opened its port may refuse its first requests.
            retries={"mode": "standard", "total_max_attempts": 10},
        ),
    )
    try:
        client.create_bucket(Bucket=settings.s3_bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    client.head_bucket(Bucket=settings.s3_bucket)
    sys.stdout.write(f"bucket {settings.s3_bucket} exists\n")


if __name__ == "__main__":
    create_bucket(Settings.load())
