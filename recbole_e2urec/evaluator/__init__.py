"""Measures that RecBole lacks."""
