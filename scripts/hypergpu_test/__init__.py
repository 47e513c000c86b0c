"""What `scripts/test` is made of: stages, a temporary PostgreSQL, Debian packages where they are missing."""
