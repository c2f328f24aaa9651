"""What may be zero and how much: patterns, allocations, schedules and masks."""
