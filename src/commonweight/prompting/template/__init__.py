"""Chat templates: rendering in a sandboxed process, and detection of the features of a template."""
