"""Alignment: rows that teach a model a charter, generated, criticised, revised and selected by models."""
