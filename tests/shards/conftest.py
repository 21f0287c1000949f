"""Lets the tests in the folders below import the kits that lie here."""
