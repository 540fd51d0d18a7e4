"""Composition root: settings to engine, guard, assistant and server. Prints nothing, parses no options."""
