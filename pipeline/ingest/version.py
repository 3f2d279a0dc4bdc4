"""The version of the pipeline: two readings of the same bytes by one version give the same result."""

from typing import Final

PIPELINE_VERSION: Final = "2"
"""Increased with every change that gives other pages, sentences or entities."""
