"""Serves pushed models. Shares only the folder of pushed versions with pipeline/; never imports tfx."""
