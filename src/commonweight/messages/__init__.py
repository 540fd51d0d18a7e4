"""The words everyone uses: requests, content blocks, stream events, errors, usage. No I/O here."""
