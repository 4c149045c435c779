"""Chains of mobile blocks: each layer is one of several blocks, and perhaps narrower than it could be."""
