"""Several jobs in one server process: one address, one certificate, and for each job a run of its own."""
