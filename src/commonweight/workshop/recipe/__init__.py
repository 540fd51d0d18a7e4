"""Recipes: the recipe file, its graph of stages, and building what is missing."""
