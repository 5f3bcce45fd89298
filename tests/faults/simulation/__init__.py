"""A seeded simulation of the ledger: `python -m tests.faults.simulation --help`."""
