"""Serves pushed models. Meets pipeline/ only at the folder of pushed versions; never imports tfx."""
