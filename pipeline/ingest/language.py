"""The language model of this worker: loaded once, before its processes are forked."""

from spacy.language import Language

from pipeline.ingest import enrich

_loaded: Language | None = None


def load(name: str) -> None:
    """Load a model by the name `SPACY_MODEL` gives it.

    Loaded before the fork its memory is shared by all processes, and a process
    that replaces a killed one has it at once. Loaded after, a slow model would
    outlast the time a new process is given to start, again and again.
    """
    global _loaded  # noqa: PLW0603  # one per worker, inherited by its processes
    _loaded = enrich.load_language(name)


def loaded() -> Language:
    if _loaded is None:
        raise RuntimeError("no language model: this worker was not started for document_processing")
    return _loaded
