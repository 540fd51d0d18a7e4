"""Evaluations: tasks, scorers and results, against a Messages endpoint or an engine in process."""
