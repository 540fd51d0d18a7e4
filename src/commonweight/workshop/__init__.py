"""Workshop: making models and guard heads. Heavy libraries are imported where they are used."""
