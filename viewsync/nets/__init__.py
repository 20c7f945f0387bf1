"""Torch modules: encoder, matching, flow, projection, fusion, decoder."""
