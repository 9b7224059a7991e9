"""Converts published data sets to RecBole's atomic files, row by row."""
