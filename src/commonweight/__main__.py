"""``python -m commonweight`` is the command ``commonweight``."""

from commonweight.cli import main

main()
