"""Chat templates: rendering in a sandboxed process, and detection of what a template supports."""
