"""Recipes and toolchains: TOML files into the model, every mistake with its line."""
