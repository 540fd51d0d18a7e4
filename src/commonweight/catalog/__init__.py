"""Model catalog: references, GGUF files and their metadata, downloads from the hub, checksums. No inference."""
