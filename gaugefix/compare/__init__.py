"""Comparisons of methods on a recipe: the grid of runs, and the report on a directory of runs."""
