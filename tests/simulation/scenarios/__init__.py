"""What can be simulated by name: ``python -m tests.simulation --list``; see docs/simulation.md."""
