"""Recipe, loop, optimizer, schedule, state."""
