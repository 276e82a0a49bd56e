"""`python -m balkit` is the command line."""

from balkit.cli import main

main()
