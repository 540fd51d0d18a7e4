"""Lineage: records of outputs, licences and generator terms, the provenance gate, and the chain of a release."""
