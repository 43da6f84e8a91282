"""Metrics, baselines, cascade, reports."""
