"""Rows of results, and the tables, plots and pages made from them."""
