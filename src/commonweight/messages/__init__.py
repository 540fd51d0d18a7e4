"""Wire models of the Messages API: requests, content blocks, stream events, errors, usage. No I/O."""
