"""Engine process: its main loop (``worker``), and the frames between it and the server (``protocol``)."""
