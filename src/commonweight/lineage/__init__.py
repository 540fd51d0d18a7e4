"""Lineage: records of outputs, licences and generator terms, and the chain of records of a release."""
