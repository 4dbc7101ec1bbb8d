"""`python -m sigmax`, and what torchrun starts: `torchrun --nproc-per-node=2 -m sigmax train …`."""

from sigmax.cli import main

main()
