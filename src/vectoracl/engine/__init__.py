"""The request pipeline, its drivers and the flows of every operation."""
