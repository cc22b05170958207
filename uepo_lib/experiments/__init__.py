"""The experiments, one module each: a frozen config in, a tidy table out."""
