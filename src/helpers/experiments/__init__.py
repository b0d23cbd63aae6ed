"""The table of all networks, what trains a row of it, and the ledger of what the chapters claim and
measure."""
