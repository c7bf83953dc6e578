"""Metrics, the 17-frame protocol, baselines and reports."""
