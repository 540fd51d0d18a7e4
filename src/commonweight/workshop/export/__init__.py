"""Export: models of other formats in, GGUF files and a parity report out."""
