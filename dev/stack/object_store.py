"""Creates buckets in the stack's object store."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_s3 import S3Client

from schemas.settings import ObjectStoreSettings


def settings_in(environment: Mapping[str, str]) -> ObjectStoreSettings:
    """Return the object store settings of an environment."""
    return ObjectStoreSettings.model_validate(
        {name.lower(): value for name, value in environment.items() if name.startswith("S3_")}
    )


@dataclass(frozen=True)
class ObjectStore:
    client: S3Client

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> "ObjectStore":
        return cls(
            boto3.session.Session().client(
                "s3",
                endpoint_url=settings["S3_ENDPOINT_URL"],
                region_name=settings.get("S3_REGION", "us-east-1"),
                aws_access_key_id=settings["S3_ACCESS_KEY_ID"],
                aws_secret_access_key=settings["S3_SECRET_ACCESS_KEY"],
                verify=settings.get("S3_CA_BUNDLE"),
                config=Config(
                    s3={"addressing_style": "path"},
                    retries={"total_max_attempts": 1},
                    connect_timeout=5,
                    read_timeout=20,
                    proxies={},
                    # Some stores refuse the trailer that the library adds over https.
                    request_checksum_calculation="when_required",
                ),
            )
        )

    def offers_bucket(self, name: str) -> bool:
        """Return whether the bucket can be used; create it if it is missing."""
        try:
            self.create_bucket(name)
        except (BotoCoreError, ClientError):
            return False
        return True

    def create_bucket(self, name: str) -> None:
        """Create a bucket unless it exists."""
        try:
            self.client.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                raise
            self.client.create_bucket(Bucket=name)
