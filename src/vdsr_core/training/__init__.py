"""How a network learns: recipe, trainer, fine-tuning."""
