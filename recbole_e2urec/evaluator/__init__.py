"""Metrics, attacks and confidence intervals that RecBole lacks."""
