"""From a layer to arrays, and back."""
