"""The language-model recommender and its losses."""
