"""Reads recipes and toolchains from TOML files; every mistake is reported with its line."""
