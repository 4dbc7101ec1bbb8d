"""`python -m sigmax`, and what torchrun starts: `torchrun --nproc-per-node=2 -m sigmax train …`."""

from sigmax.cli.main import main

main()
