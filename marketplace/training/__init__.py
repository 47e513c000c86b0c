"""The heart: rounds, assignments, contributions, checkpoints. Reading order: models, services, engine, tasks."""
