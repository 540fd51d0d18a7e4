"""Screening of exchanges under a charter: from scores and phrases to verdicts."""
