"""Loads what workers load when they start: models, parsers, and boto3's description of S3.

`tests.fork_server` imports this module, so that each of its workers has them at once.
"""

import boto3

from pipeline.enrich.detection import Detector
from pipeline.ingest.extractors import registry
from schemas.runtime.embedding import chosen
from schemas.settings import EmbeddingModelName

Detector()
registry.load()
chosen.named(chosen.MODELS[EmbeddingModelName.USE_STATIC].name)
boto3.client("s3", region_name="none", aws_access_key_id="none", aws_secret_access_key="none")  # noqa: S106  # of no store
