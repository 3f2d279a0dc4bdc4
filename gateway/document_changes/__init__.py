"""Jobs of stored documents: read again, render a page, delete."""
