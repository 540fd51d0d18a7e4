"""Answers held to a grammar by the real model: what comes out, what it costs, and what guessing makes of it."""

import json
import re

import pytest
from machines import Machine

from commonweight.engines.contract import Job, Sampling

OBJECT = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
