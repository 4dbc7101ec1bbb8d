"""Comparison and evaluations to tables, words and figures. Everything here only reads results."""
