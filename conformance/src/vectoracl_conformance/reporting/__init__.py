"""Reports and generated pages."""
