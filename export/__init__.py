"""A trained model and a scene become a bundle."""
