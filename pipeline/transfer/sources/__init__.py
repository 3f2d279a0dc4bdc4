"""The sources of a transfer: a staged file, staged objects, or a referenced object."""
