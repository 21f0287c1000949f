"""Reads tables of samples, Parquet, Arrow and JSON lines, row by row in bounded memory."""
