"""`python -m miyagi.cli`: how train/launch.py starts the processes of one training."""

from miyagi.cli import main

main()
