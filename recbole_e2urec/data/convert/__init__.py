"""From the files that a data set's owners publish to RecBole's atomic files, row by row."""
