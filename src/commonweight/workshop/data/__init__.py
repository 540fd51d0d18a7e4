"""Datasets: sources, rows with their provenance, duplicates, decontamination and mixes."""
