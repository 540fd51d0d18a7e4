"""Which models exist: files on disk, what is known about them, and how they get there. No inference here."""
