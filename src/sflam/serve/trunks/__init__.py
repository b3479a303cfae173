"""The trunks of a served run on servers of their own: at the coordinator, and as a process."""
