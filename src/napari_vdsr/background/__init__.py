"""Work beside the viewer."""
