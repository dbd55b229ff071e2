"""The widget that fine-tunes a network on the user's images."""
