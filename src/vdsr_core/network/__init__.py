"""From weights to a residual: the model, its files, and the engines that compute it."""
