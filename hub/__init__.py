"""The hub side: receiver, buffer, reference choice, fusion, outputs."""
