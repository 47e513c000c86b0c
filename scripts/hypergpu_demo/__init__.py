"""What `scripts/demo` is made of: a process supervisor, the list of processes, and the actors of a market."""
