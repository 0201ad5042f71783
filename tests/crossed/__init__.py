"""Pairs whose models cut images otherwise: across families, and a guide that looks at less."""
