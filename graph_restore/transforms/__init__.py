"""Model to Model: restore, freeze and what they are made of. Pure: the model given stays as it was."""
