"""What every app shares: errors, times, tasks."""
