"""Batches: receive their lines, list, show, report, pause, resume, cancel."""
