"""What a network learns from: planes, pairs, patches, and what is held out."""
