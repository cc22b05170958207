"""Whole algorithms, each written like its box in the paper."""
