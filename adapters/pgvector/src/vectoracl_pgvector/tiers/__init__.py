"""A tenant's own partition: moves there and back, removal, and the shadow copy that they fill."""
