"""``python -m cryoquery`` is the command ``cryoquery``."""

from cryoquery.cli import main

main()
