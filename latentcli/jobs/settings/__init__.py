"""Holds the options that several jobs share: of pictures, models, stores and followers."""
