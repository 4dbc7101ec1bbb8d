"""Comparisons and evaluations as tables, words, figures and pages. Everything here only reads results."""
