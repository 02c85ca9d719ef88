"""Attacks on the product, each while a server answers: what happens, and what is served before and after."""
