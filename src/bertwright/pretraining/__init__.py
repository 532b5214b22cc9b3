"""Pretraining: masked words and next sentence, from a recipe to a model directory."""
